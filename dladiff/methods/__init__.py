"""Methods beside our own, on the same primitives: the paper's, and ten of others.

``paper`` is the way of arXiv:2511.19910, layer by layer; it also serves photos without a face, and
its layer 2 the preset ``zero-shot``. ``others`` are methods of other papers, each a loss and a few
hooks. Modules of this folder are what both take gradients with. Each is a preset by its name:
``dladiff.Protector("mist")``; ``NAMES`` lists them.
"""

from typing import get_args

from dladiff.config import OtherMethodName

NAMES: tuple[OtherMethodName, ...] = get_args(OtherMethodName)
"""Names of the methods of other papers."""

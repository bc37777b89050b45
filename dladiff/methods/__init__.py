"""Methods beside our own, on the same primitives: the paper's, and ten of others.

``paper`` is the way of arXiv:2511.19910, layer by layer; it also serves photos without a face, and
its layer 2 the preset ``zero-shot``. ``others`` are methods of other papers, each a loss and a few
hooks. Modules of this folder are what both take gradients with.
"""

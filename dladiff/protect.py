"""The method on one screen: layer 1, then layer 2, then what was reached.

Jia et al., "DLADiff", arXiv:2511.19910. Knows photos of one person and loaded models; knows no
files, no cluster and no command line.
"""

from collections.abc import Callable, Sequence

from dladiff.config import MethodSettings
from dladiff.models import ProtectionModels
from dladiff.photo_sets import Photo, SetResult


def protect_photo_set(
    photos: Sequence[Photo],
    references: Sequence[Photo],
    models: ProtectionModels,
    config: MethodSettings,
    on_progress: Callable[[str, float], None] | None = None,
) -> SetResult:
    """Protects the photos of one person.

    ``protected = round8(clip01(clean + delta_ft + delta_zs))``: layer 1 first, layer 2 on top
    (the reverse may wipe out layer 2, section 3 of the paper).

    Args:
        photos: Clean photos to protect, each at its own size.
        references: More clean photos of the same person, read by Step 0 only; never written.
        models: Loaded once per worker on the device that computes.
        config: The method; its digest names the bytes.
        on_progress: Called between steps with a stage name and the fraction done in [0, 1].

    Returns:
        One result per photo in the order given, and the set's measurements and cost.
    """
    raise NotImplementedError

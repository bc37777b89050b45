"""Files whose names say nothing -> those that are photos by their first bytes.

One small request a file. Knows signatures; decodes nothing.
"""

from collections.abc import Callable, Collection, Sequence

from pipeline.catalog.photos import CatalogReport, side_by_side
from pipeline.errors import StoreDenied
from pipeline.images.signatures import NUM_START_BYTES, may_be_photo
from pipeline.storage.store import ObjectInfo, Store


def photos_among(
    store: Store,
    files: Sequence[ObjectInfo],
    known: Callable[[], Collection[str]],
    report: CatalogReport,
) -> list[ObjectInfo]:
    """The files that may be photos, in their order.

    A file that may not be read is taken for one: whoever reads it then says what is wrong. So is
    one that OUTPUT has decided on, without a look: a million such keys of a bucket would cost a
    million requests in each run.

    Args:
        files: None of them empty.
        known: URIs that OUTPUT has a decision on; asked only where there are files.
        report: Gets how many were looked at.
    """
    if not files:
        return []
    decided = known()
    new = [info for info in files if store.uri_of(info.key) not in decided]
    report.num_looked_at += len(new)

    def look(info: ObjectInfo) -> bool:
        try:
            return may_be_photo(store.read_start(info.key, NUM_START_BYTES))
        except FileNotFoundError:  # deleted since it was listed
            return False
        except StoreDenied:
            return True

    others = {
        info.key
        for info, is_photo in zip(new, side_by_side(look, new), strict=True)
        if not is_photo
    }
    return [info for info in files if info.key not in others]

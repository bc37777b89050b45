"""What a store tells of an object, and what every kind of store can do.

Knows no vendor. ``storage`` builds the guarantees on these few operations.
"""

import mimetypes
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

_TYPES = mimetypes.MimeTypes(filenames=())
"""By this program alone: what the machine's own files know differs from image to image."""
for _ending in ("webp", "avif", "heic", "heif"):
    _TYPES.add_type(f"image/{_ending}", f".{_ending}")
for _type, _ending in (("jpeg", "jfif"), ("jpeg", "mpo"), ("heif", "hif")):
    _TYPES.add_type(f"image/{_type}", f".{_ending}")


def content_type(key: str) -> str:
    """What a bucket is told of an object, so that browsers show an image."""
    return _TYPES.guess_type(key)[0] or "application/octet-stream"


@dataclass(frozen=True)
class ObjectInfo:
    """An object as the store describes it, without its content."""

    key: str
    """Path below the store's root, ``/`` between segments."""
    size: int
    """Bytes."""
    version: str
    """Changes when the content may have changed: etag; local size and mtime_ns."""
    modified: float
    """By the store's own clock, seconds since 1970 UTC; buckets often know whole seconds only."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """User metadata, lower-case names; filled by ``info`` only, always empty for local files."""


class Skipped(Counter[str]):
    """What a listing left out, counted by reason, e.g. ``link_leaves_folder``."""

    def __init__(self, tolerates_denied: bool = False) -> None:
        """
        Args:
            tolerates_denied: A folder that may not be read is left out; else it is an error.
        """
        super().__init__()
        self.tolerates_denied = tolerates_denied
        self.denied: list[str] = []
        """Keys of the folders, and of files that only their folder knows, that were denied."""


class Backend(Protocol):
    """A folder or bucket prefix; raises its library's own exceptions, retries nothing."""

    def root_exists(self) -> bool:
        """Whether the folder, or the bucket, is there."""

    def get(self, key: str, max_bytes: int | None) -> bytes:
        """The whole object; ObjectTooLarge before more than ``max_bytes`` are kept."""

    def get_part(self, key: str, start: int, num_bytes: int) -> bytes:
        """Bytes of an object from ``start`` on, fewer where it has no more; one request."""

    def put(self, key: str, data: bytes, metadata: dict[str, str]) -> None:
        """Writes all or nothing, replacing."""

    def put_new(self, key: str, data: bytes, metadata: dict[str, str]) -> None:
        """Writes all or nothing; FileExistsError if the key is taken."""

    def copy(self, source_key: str, final_key: str, metadata: dict[str, str]) -> None:
        """Copies within the store, all or nothing, with new metadata."""

    def head(self, key: str) -> ObjectInfo | None:
        """Description of one object, None if there is none."""

    def sha256(self, key: str) -> str:
        """Hex digest of the object's bytes, read now."""

    def scan(
        self, prefix: str, skipped: Skipped, is_hidden: Callable[[str], bool]
    ) -> Iterator[ObjectInfo]:
        """All objects whose key starts with ``prefix``.

        ``is_hidden`` says of a name whether a folder may leave it out, unopened, as ``hidden``.
        """

    def folders(self, prefix: str) -> Iterator[str]:
        """Names of the folders directly below ``prefix``, which ends in ``/`` or is ''."""

    def remove(self, keys: Sequence[str]) -> None:
        """Deletes at most 1000 objects; a missing key is no error."""

    def temporaries(self, older_than_s: float) -> Sequence[ObjectInfo]:
        """What killed writers left of files they had not finished."""

"""Where a protected photo lies below OUTPUT: ``images/<identity>/<path>.png``, encoded.

Knows names only. Different photos get different keys, also on file systems that ignore case.
"""

from collections.abc import Collection, Iterable, Mapping

from pipeline.records import SourcePhoto

MAX_SEGMENT_BYTES = 120
"""Longer encoded segments are cut; file systems take 255, temporary names add to it."""


def encode_segment(segment: str) -> str:
    """Encodes one path segment as a name that is safe on every file system and in a URL."""
    raise NotImplementedError


def output_key(identity: str, path_below_identity: str) -> str:
    """Key below OUTPUT of the protected photo, e.g. ``images/ann/2024/1.jpg.png``."""
    raise NotImplementedError


def require_output_key(key: str) -> str:
    """Returns a key that a person gave in a catalog, if it is one we may write to.

    Raises:
        ConfigurationError: If it is not a normal path below ``images/``.
    """
    raise NotImplementedError


def assign_output_keys(
    photos: Iterable[SourcePhoto],
    held: Mapping[str, str],
    given: Collection[str] = (),
) -> list[SourcePhoto]:
    """Gives each photo its final output key, in the order of ``photos``.

    Args:
        photos: With the keys they would like to have.
        held: Output key by source URI, of all photos that OUTPUT already holds.
        given: URIs whose key a person chose in a catalog file; never altered.

    Raises:
        ConfigurationError: If a given key is taken by another photo.
    """
    raise NotImplementedError

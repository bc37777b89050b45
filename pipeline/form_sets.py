"""Photos to do -> photo sets of near-equal size, small ones filled up with references.

Depends on nothing but the photos themselves, so every listing order gives the same sets.
"""

from collections.abc import Mapping, Sequence

from pipeline.records import PhotoSet, SourcePhoto


def form_sets(
    to_do: Sequence[SourcePhoto],
    originals: Mapping[str, Sequence[SourcePhoto]],
    method_digest: str,
    *,
    max_photos: int,
    max_bytes: int,
    min_photos: int,
) -> list[PhotoSet]:
    """Forms the sets of all identities, identities in order of their names' hashes.

    Args:
        to_do: Photos to protect.
        originals: Photos by identity that may serve as references.
        method_digest: Enters the set keys.
        max_photos: Photos of a set at most.
        max_bytes: Encoded bytes of a set at most; a single larger photo is a set of its own.
        min_photos: Smaller sets are filled up to this with references; 0: none are.
    """
    raise NotImplementedError


def set_key(
    identity: str,
    photos: Sequence[SourcePhoto],
    references: Sequence[SourcePhoto],
    method_digest: str,
) -> str:
    """sha256 hex of all that decides what a set's work is."""
    raise NotImplementedError

"""Photos to do -> photo sets of near-equal size, small ones filled up with references.

Depends on nothing but the photos themselves, so every listing order gives the same sets.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from itertools import pairwise

from pipeline.records import PhotoSet, SourcePhoto


def form_sets(
    to_do: Iterable[SourcePhoto],
    originals: Mapping[str, Sequence[SourcePhoto]],
    method_digest: str,
    *,
    max_photos: int,
    max_bytes: int,
    min_photos: int,
) -> list[PhotoSet]:
    """Forms the sets of all identities, in name order; in each, photos in order of their hash.

    Args:
        to_do: Photos to protect.
        originals: Photos by identity that may serve as references.
        method_digest: Enters the set keys.
        max_photos: Photos of a set at most.
        max_bytes: Encoded bytes of a set at most, references included; a single larger photo is
            a set of its own.
        min_photos: Smaller sets are filled up to this with references; 0: none are.
    """
    of_identity: defaultdict[str, list[SourcePhoto]] = defaultdict(list)
    for photo in to_do:
        of_identity[photo.identity].append(photo)
    sets = []
    for identity, photos in sorted(of_identity.items()):
        candidates = sorted(originals.get(identity, ()), key=_order) if min_photos else []
        for part in _split(sorted(photos, key=_order), max_photos, max_bytes):
            references = _references(part, candidates, min_photos, max_bytes)
            key = set_key(identity, part, references, method_digest)
            sets.append(PhotoSet(key, identity, tuple(part), tuple(references)))
    return sets


def set_key(
    identity: str,
    photos: Sequence[SourcePhoto],
    references: Sequence[SourcePhoto],
    method_digest: str,
) -> str:
    """sha256 hex of all that decides what a set's work is."""
    content = {
        "identity": identity,
        "photos": [(photo.uri, photo.version) for photo in photos],
        "references": [(photo.uri, photo.version) for photo in references],
        "method": method_digest,
    }
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _order(photo: SourcePhoto) -> bytes:
    """Orders by place in OUTPUT, not in INPUT: a copied album makes the same sets."""
    return sha256(photo.output_key.encode()).digest()


def _split(
    photos: Sequence[SourcePhoto], max_photos: int, max_bytes: int
) -> list[Sequence[SourcePhoto]]:
    """ceil(n / max_photos) parts whose sizes differ by one at most; too heavy ones are halved."""
    num_parts = -(-len(photos) // max_photos)
    if num_parts == 1 and len(photos) > 1 and _num_bytes(photos) > max_bytes:
        num_parts = 2
    if num_parts == 1:
        return [photos]
    ends = [len(photos) * part // num_parts for part in range(num_parts + 1)]
    return [
        part
        for start, end in pairwise(ends)
        for part in _split(photos[start:end], max_photos, max_bytes)
    ]


def _references(
    photos: Sequence[SourcePhoto],
    candidates: Sequence[SourcePhoto],
    min_photos: int,
    max_bytes: int,
) -> list[SourcePhoto]:
    references: list[SourcePhoto] = []
    left = max_bytes - _num_bytes(photos)
    uris = {photo.uri for photo in photos}
    for candidate in candidates:
        if len(photos) + len(references) >= min_photos:
            break
        if candidate.uri not in uris and candidate.size_bytes <= left:
            references.append(candidate)
            left -= candidate.size_bytes
    return references


def _num_bytes(photos: Sequence[SourcePhoto]) -> int:
    return sum(photo.size_bytes for photo in photos)

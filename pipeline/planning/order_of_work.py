"""In which order a run takes its photo sets: newest uploads first, every person in turn.

Decides nothing but the order: keys, bytes and digests of a set are the same at any place.
"""

from collections import Counter
from collections.abc import Iterable

from pipeline.records import PhotoSet


def order_of_work(photo_sets: Iterable[PhotoSet]) -> list[PhotoSet]:
    """Sorts sets into rounds: each round takes the newest set left of every person.

    So a person with thousands of photos delays another one by a set, and an upload of today is not
    behind a backlog of years. Sets of equal age stand in order of their keys, which is random to a
    person and the same in every run.
    """
    rounds = Counter[str]()
    placed = []
    for photo_set in sorted(photo_sets, key=lambda each: (-_newest_upload(each), each.key)):
        placed.append((rounds[photo_set.identity], photo_set))
        rounds[photo_set.identity] += 1
    return [photo_set for _, photo_set in sorted(placed, key=lambda place: place[0])]


def _newest_upload(photo_set: PhotoSet) -> float:
    """Unix time; photos whose store says nothing count as old."""
    return max((photo.modified_s or 0.0 for photo in photo_set.photos), default=0.0)

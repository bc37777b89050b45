"""Photo set -> encoded bytes of its photos and references, a status per photo.

A trouble of one photo is that photo's reason; a trouble of the store is told apart from it. The
row functions are what Ray's ``map`` calls; nothing here knows Ray.
"""

from typing import Any

from pipeline.records import PhotoSet, ReadPhoto


def read_photo_set(photo_set: PhotoSet, max_photo_bytes: int) -> list[ReadPhoto]:
    """Reads all photos of a set, then its references; never raises for a photo's sake."""
    raise NotImplementedError


def read_row(row: dict[str, Any], max_photo_bytes: int) -> dict[str, Any]:
    """``read_photo_set`` on a row ``{"photo_set": json}``; adds the columns of the outcome.

    Adds lists with an entry per photo and reference: ``contents`` (bytes), ``sha256``,
    ``reasons`` and ``environment``.
    """
    raise NotImplementedError


def photos_of_row(row: dict[str, Any]) -> tuple[PhotoSet, list[ReadPhoto]]:
    """The inverse of ``read_row``, for the step after it."""
    raise NotImplementedError

"""Photo set -> encoded bytes of its photos and references, a status per photo.

A trouble of one photo is that photo's reason; a trouble of the store is told apart from it. The
row functions are what Ray's ``map`` calls; nothing here knows Ray.
"""

import logging
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from pipeline.errors import (
    ConfigurationError,
    EnvironmentTrouble,
    PhotoError,
    StoreDenied,
    StoreUnreachable,
)
from pipeline.images.files import require_byte_limits, too_many_bytes
from pipeline.reasons import Reason, ReasonCode
from pipeline.records import PhotoSet, ReadPhoto, SourcePhoto
from pipeline.storage.store import ObjectTooLarge, open_store, read_uri
from pipeline.storage.uris import root_of

_log = logging.getLogger("dladiff.read")

_DENIED = ReadPhoto(None, None, cause=StoreDenied.cause)


def read_photo_set(
    photo_set: PhotoSet, max_photo_bytes: int, roots: Sequence[str] = ()
) -> list[ReadPhoto]:
    """Reads all photos of a set, then its references; never raises for a photo's sake.

    What is read is what lies there now. A photo that changed since the plan was made is
    protected as it is: its row keeps the planned version and the sha256 of what was read, so the
    next run sees another version, finds the same sha256, and calls it unchanged.

    Access denied to some of a set's files and not to others is these photos' trouble
    (``unreadable``); denied to all of them, it is the environment's: one file of one person must
    not stop a run, a missing permission of the worker must not condemn every photo.

    Args:
        photo_set: From the plan.
        max_photo_bytes: Larger files are not read.
        roots: ``Catalog.roots``; links that leave them are not followed. Empty: a photo's own
            folder.

    Returns:
        One per photo, then one per reference. A reason is ``missing``, ``unreadable``,
        ``empty_file`` or ``too_many_bytes``.
    """
    photos = [*photo_set.photos, *photo_set.references]
    reads = [_read(photo, max_photo_bytes, roots) for photo in photos]
    if reads.count(_DENIED) == len(reads) and not _is_single_local_file(photos):
        return reads
    denied = ReadPhoto(None, None, Reason(ReasonCode.UNREADABLE, "access to this file is denied"))
    return [denied if read == _DENIED else read for read in reads]


def read_row(
    row: dict[str, Any], max_photo_bytes: int, roots: Sequence[str] = ()
) -> dict[str, Any]:
    """``read_photo_set`` on a row ``{"photo_set": json}``; adds the columns of the outcome.

    Adds lists with an entry per photo and reference: ``contents`` (bytes), ``sha256``,
    ``reasons`` and ``causes``. Where there is none, it is empty instead of null, so that every
    block has the same column types.
    """
    photo_set = PhotoSet.from_json(row["photo_set"])
    reads = read_photo_set(photo_set, max_photo_bytes, roots)
    return row | {
        "contents": [read.content or b"" for read in reads],
        "sha256": [read.sha256 or "" for read in reads],
        "reasons": [str(read.reason or "") for read in reads],
        "causes": [read.cause or "" for read in reads],
    }


def photos_of_row(row: dict[str, Any]) -> tuple[PhotoSet, list[ReadPhoto]]:
    """The inverse of ``read_row``, for the step after it."""
    columns = (row[name] for name in ("contents", "sha256", "reasons", "causes"))
    reads = [
        ReadPhoto(
            content or None,
            digest or None,
            Reason.parse(reason) if reason else None,
            cause or None,
        )
        for content, digest, reason, cause in zip(*columns, strict=True)
    ]
    return PhotoSet.from_json(row["photo_set"]), reads


def _read(photo: SourcePhoto, max_bytes: int, roots: Sequence[str]) -> ReadPhoto:
    try:
        content = read_uri(photo.uri, max_bytes, root_of(photo.uri, roots))
        require_byte_limits(len(content), max_bytes)
    except FileNotFoundError:
        return _missing(root_of(photo.uri, roots))
    except ObjectTooLarge as error:
        return ReadPhoto(None, None, too_many_bytes(error.size, max_bytes))
    except PhotoError as error:
        return ReadPhoto(None, None, error.reason)
    except EnvironmentTrouble as trouble:
        _log.debug("%s: %s", photo.uri, trouble)
        return ReadPhoto(None, None, cause=trouble.cause)
    except (OSError, ConfigurationError) as error:
        # E.g. a name that this file system cannot have, or a loop of links.
        _log.debug("%s cannot be read: %s", photo.uri, error)
        return ReadPhoto(None, None, Reason(ReasonCode.UNREADABLE, type(error).__name__))
    return ReadPhoto(content, sha256(content).hexdigest())


def _missing(root: str | None) -> ReadPhoto:
    """A photo that is not there, unless the whole INPUT is not there on this machine."""
    try:
        mounted = root is None or open_store(root).root_exists()
    except EnvironmentTrouble as trouble:
        return ReadPhoto(None, None, cause=trouble.cause)
    if not mounted:
        return ReadPhoto(None, None, cause=StoreUnreachable.cause)
    return ReadPhoto(
        None, None, Reason(ReasonCode.MISSING, "the file is gone or leads out of INPUT")
    )


def _is_single_local_file(photos: Sequence[SourcePhoto]) -> bool:
    """On a local file system permissions are per file, and a lone one has no other beside it."""
    return len(photos) == 1 and photos[0].uri.startswith("file:")

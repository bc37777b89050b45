"""Where a protected photo lies below OUTPUT: ``images/<identity>/<path>``, encoded, and its ending.

Knows names only. Different photos get different keys, also on file systems that ignore case,
and a photo keeps its key for as long as OUTPUT holds it.
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from hashlib import sha256

from pipeline.config import FORMAT_OF_ENDING, FileFormat, OutputFormat
from pipeline.errors import ConfigurationError
from pipeline.records import SourcePhoto

MAX_SEGMENT_BYTES = 120
"""Longer encoded segments are cut; file systems take 255, temporary names add to it."""
MAX_KEY_BYTES = 900
"""Longer keys are cut; S3 takes 1024."""

_UNSAFE = re.compile(rb"[^A-Za-z0-9._-]")
_EXTENSION = re.compile(r"\.[A-Za-z0-9]{1,8}$")
_GIVEN_KEY = re.compile(r"images/[^\x00-\x1f\x7f\\]+")
_CUT = "~"
"""Stands before the hash of what was cut or collided. Never a result of encoding, so that no
name a person chooses can equal a cut one."""


def encode_segment(segment: str) -> str:
    """Encodes one path segment as a name that is safe on every file system and in a URL.

    Percent-encodes all but ``[A-Za-z0-9._-]`` and a leading dot. More than
    ``MAX_SEGMENT_BYTES`` are cut to the beginning, ``~``, 8 hex of the segment's hash and the
    extension. Different segments give different names (cut ones as far as 32 bits tell;
    ``assign_output_keys`` sees to the rest).
    """
    encoded = _UNSAFE.sub(lambda byte: b"%%%02X" % byte[0][0], segment.encode()).decode()
    if encoded.startswith("."):
        encoded = "%2E" + encoded[1:]
    if not encoded:
        return "%"  # S3 allows a//b; no other segment encodes to this
    return _cut(encoded, MAX_SEGMENT_BYTES, segment)


def output_key(identity: str, path_below_identity: str) -> str:
    """Key below OUTPUT of the protected photo, e.g. ``images/ann/2024/1.jpg.png``.

    The extension stays, so that ``a.jpg`` and ``a.heic`` are two photos.

    Args:
        identity: Any text; ``/`` in it is encoded like every other sign.
        path_below_identity: Segments separated by ``/``.
    """
    folder = f"images/{encode_segment(identity)}/"
    path = "/".join(map(encode_segment, path_below_identity.split("/")))
    path = _cut(path, MAX_KEY_BYTES - len(folder), path_below_identity)
    return f"{folder}{path}.png"


def key_in_format(
    key: str,
    output_format: OutputFormat,
    can_write: Callable[[FileFormat], bool] = lambda _: True,
) -> str:
    """The key of ``output_key`` with the ending that the wanted format needs.

    Args:
        key: As ``output_key`` made it, ending in ``.png``.
        output_format: ``same`` keeps the original's name; where no such file can be written, the
            ending of what is written instead stands behind it.
        can_write: Whether there is an encoder for a format.
    """
    if output_format == "png":
        return key
    own = key.removesuffix(".png")
    ending = ending_of(own)
    if output_format == "same":
        held = FORMAT_OF_ENDING.get(ending)
        if held is not None:
            return own if can_write(held) else f"{own}.jpg"
        return own if not ending else f"{own}.png"
    if FORMAT_OF_ENDING.get(ending) == output_format.upper():
        return own
    return f"{own}.{'jpg' if output_format == 'jpeg' else output_format}"


def ending_of(name: str) -> str:
    """``jpg`` of ``a/1.JPG``; empty where there is none."""
    found = _EXTENSION.search(name.rpartition("/")[2])
    return "" if found is None else found.group()[1:].lower()


def require_output_key(key: str) -> str:
    """Returns a key that a person gave in a catalog, if it is one we may write to.

    Raises:
        ConfigurationError: If it is not a normal path below ``images/`` with the ending of a
            photo that can be written.
    """
    segments = key.split("/")
    if (
        not _GIVEN_KEY.fullmatch(key)
        or any(not segment or segment.startswith(".") for segment in segments)
        or any(len(segment.encode()) > 200 for segment in segments)
        or len(key.encode()) > MAX_KEY_BYTES
        or ending_of(key) not in FORMAT_OF_ENDING
    ):
        raise ConfigurationError(
            f"output_key {key!r}: expected a path below images/ that ends in "
            f"{', '.join(f'.{ending}' for ending in FORMAT_OF_ENDING)}, without empty or hidden "
            "segments"
        )
    return key


def assign_output_keys(
    photos: Iterable[SourcePhoto], held: Mapping[str, str], given: Collection[str] = ()
) -> list[SourcePhoto]:
    """Gives each photo its final output key, in the order of ``photos``.

    A photo that OUTPUT already holds keeps the key it has there, whatever arrives later. A new
    one takes the key it wants, unless another photo, held or in the catalog, wants or has the
    same one in any letter case: then every new one of them gets 8 hex of its URI's hash, so
    that the result depends on the photos and on OUTPUT, never on the order of a listing.

    Args:
        photos: With the keys they would like to have; URIs differ.
        held: Output key by source URI, of all photos that OUTPUT holds, also of those whose
            original is gone: their output is still served under it.
        given: URIs whose key a person chose in a catalog file; taken as they are.

    Raises:
        ConfigurationError: If a given key is taken by another photo.
    """
    wanted = list(photos)
    demand = Counter(photo.output_key.casefold() for photo in wanted)
    taken = {key.casefold(): uri for uri, key in held.items()}
    given_uris = frozenset(given)
    for photo in wanted:
        if photo.uri in given_uris:
            _claim(photo.output_key, photo.uri, taken)
    assigned = []
    for photo in wanted:
        key = photo.output_key
        if photo.uri not in given_uris:
            key = held.get(photo.uri) or _free_key(photo, demand, taken)
        assigned.append(photo if key == photo.output_key else _with_key(photo, key))
    return assigned


def _free_key(photo: SourcePhoto, demand: Counter[str], taken: dict[str, str]) -> str:
    key = photo.output_key
    digest = sha256(photo.uri.encode()).hexdigest()
    num_hex = 8
    alone = demand[key.casefold()] == 1
    while not alone or taken.setdefault(key.casefold(), photo.uri) != photo.uri:
        stem, extension = _split_extensions(photo.output_key)
        key = f"{stem}{_CUT}{digest[:num_hex]}{extension}"
        num_hex *= 2  # as good as never: 32 bits of two hashes were equal
        alone = True
    return key


def _claim(key: str, uri: str, taken: dict[str, str]) -> None:
    if taken.setdefault(key.casefold(), uri) != uri:
        raise ConfigurationError(
            f"output_key {key!r} of the catalog is already that of another photo: choose another"
        )


def _with_key(photo: SourcePhoto, key: str) -> SourcePhoto:
    return dataclasses.replace(photo, output_key=key)


def _cut(encoded: str, max_bytes: int, original: str) -> str:
    if len(encoded) <= max_bytes:
        return encoded
    stem, extension = _split_extension(encoded)
    tail = f"{_CUT}{sha256(original.encode()).hexdigest()[:8]}{extension}"
    beginning = stem[: max_bytes - len(tail)]
    # Neither half an escape nor a lone separator may stand at the end.
    return re.sub(r"(%[0-9A-F]?|/)$", "", beginning) + tail


def _split_extension(name: str) -> tuple[str, str]:
    found = _EXTENSION.search(name)
    return (name, "") if found is None else (name[: found.start()], found.group())


def _split_extensions(name: str) -> tuple[str, str]:
    """The same, but ``.jpg.png`` stays together."""
    stem, extension = _split_extension(name)
    if extension[1:].lower() in FORMAT_OF_ENDING:
        stem, original = _split_extension(stem)
        return stem, original + extension
    return stem, extension

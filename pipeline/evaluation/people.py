"""CLEAN and protected trees -> people: which photos are attacked, which are the clean reference.

Lists and hashes; decodes nothing. A protected tree is a folder of the same shape as CLEAN, or the
OUTPUT of a run, whose manifest then says which file protects which photo.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from pipeline.catalog.folder import CATALOG_EXTENSIONS, PHOTO_EXTENSIONS, read_catalog
from pipeline.config import OperationSettings
from pipeline.errors import ConfigurationError
from pipeline.evaluation.settings import EvaluationSettings
from pipeline.output.manifest import newest_state
from pipeline.output.manifest_parts import part_keys
from pipeline.records import SourcePhoto
from pipeline.storage.store import Store, open_store, read_uri

CLEAN = "clean"
PROTECTED = "protected"
"""Names of the two conditions that every evaluation has."""
MIN_REFERENCE = 2
"""Where fewer photos are left over, the attacked photos' clean originals are the reference."""


@dataclass(frozen=True)
class PhotoFile:
    """One photo by place and content."""

    uri: str
    sha256: str


@dataclass(frozen=True)
class Person:
    """One identity, as the attacker and as the judges get to see it."""

    identity: str
    conditions: Mapping[str, tuple[PhotoFile, ...]]
    """The attacked photos by condition, always the same ones in the same order."""
    reference: tuple[PhotoFile, ...]
    """Clean photos that stand for the person."""
    own_reference: bool
    """The reference is the attacked photos' originals, since too few others are left."""


def require_trees(clean_uri: str, trees: Iterable[str]) -> None:
    """Asks whether CLEAN and the protected trees are there at all, before anything slow.

    Raises:
        ConfigurationError: If one is not.
    """
    if PurePosixPath(clean_uri).suffix.lower().removeprefix(".") not in CATALOG_EXTENSIONS:
        _open_tree(clean_uri, "clean")
    for tree in trees:
        _open_tree(tree, "protected")


def _open_tree(uri: str, kind: str) -> Store:
    store = open_store(uri)
    if not store.root_exists():
        raise ConfigurationError(
            f"there is no folder of {kind} photos at {store.uri}: check its spelling"
        )
    return store


def find_people(
    clean_uri: str, trees: Mapping[str, str], settings: EvaluationSettings
) -> list[Person]:
    """People with photos in CLEAN and in every protected tree, by name.

    Args:
        clean_uri: Folder with ``<identity>/<photo>``.
        trees: Protected trees by condition.
        settings: How many people and photos.

    Raises:
        ConfigurationError: If nobody is left.
    """
    photos = read_catalog(clean_uri, OperationSettings()).photos
    by_identity = photos_by_identity(photos)
    found = {name: protected_uris(photos, uri) for name, uri in trees.items()}
    people = []
    for identity, of_person in by_identity.items():
        attacked = [
            photo for photo in of_person if all(photo.uri in uris for uris in found.values())
        ][: settings.num_trained]
        if attacked:
            people.append((identity, of_person, attacked))
    chosen = people[settings.skip_people :][: settings.max_people]
    if not chosen:
        raise ConfigurationError(
            "nobody to attack: no photo of CLEAN has its protected one in "
            f"{' and '.join(trees.values())}, or --skip-people leaves nobody"
        )
    return [
        _person(identity, of_person, attacked, found) for identity, of_person, attacked in chosen
    ]


def photos_by_identity(photos: Iterable[SourcePhoto]) -> dict[str, list[SourcePhoto]]:
    """Identities by name, each with its photos by URI: the order of every evaluation."""
    by_identity: dict[str, list[SourcePhoto]] = {}
    for photo in sorted(photos, key=lambda photo: (photo.identity, photo.uri)):
        by_identity.setdefault(photo.identity, []).append(photo)
    return by_identity


def _person(
    identity: str,
    photos: Sequence[SourcePhoto],
    attacked: Sequence[SourcePhoto],
    found: Mapping[str, Mapping[str, str]],
) -> Person:
    clean = tuple(photo_file(photo.uri) for photo in attacked)
    others = [photo for photo in photos if photo not in attacked]
    own = len(others) < MIN_REFERENCE
    conditions = {CLEAN: clean}
    for name, uris in found.items():
        conditions[name] = tuple(photo_file(uris[photo.uri]) for photo in attacked)
    reference = clean if own else tuple(photo_file(photo.uri) for photo in others)
    return Person(identity, conditions, reference, own)


def protected_uris(photos: Collection[SourcePhoto], tree_uri: str) -> dict[str, str]:
    """URI of the protected photo by URI of the clean one, as far as there are any."""
    store = _open_tree(tree_uri, "protected")
    if is_output(tree_uri):
        keys = {
            uri: state.output_key
            for uri, state in newest_state(store).items()
            if state.output_key is not None
        }
        by_uri = {photo.uri: keys[photo.uri] for photo in photos if photo.uri in keys}
        if by_uri:
            return {uri: store.uri_of(key) for uri, key in by_uri.items()}
        # CLEAN has moved since: its photos are known by the keys they would have.
        held = {_stem(key): key for key in keys.values()}
        return {
            photo.uri: store.uri_of(held[path])
            for photo in photos
            if (path := _stem(photo.output_key)) in held
        }
    there = {_stem(info.key): info.key for info in store.list("")}
    return {
        photo.uri: store.uri_of(there[path])
        for photo in photos
        if (path := _stem(photo.output_key.removeprefix("images/"))) in there
    }


def is_output(uri: str) -> bool:
    """Whether a protected tree is the OUTPUT of a run, with a manifest."""
    return next(iter(part_keys(open_store(uri))), None) is not None


def _stem(key: str) -> str:
    """A path without its photo extensions: ``ann/1.jpg.png``, ``ann/1.png`` and ``ann/1.jpg``."""
    path = PurePosixPath(key)
    while path.suffix.lower().removeprefix(".") in PHOTO_EXTENSIONS:
        path = path.with_suffix("")
    return path.as_posix()


def photo_file(uri: str) -> PhotoFile:
    """Reads a photo to know its content; raises what ``read_uri`` does."""
    return PhotoFile(uri, hashlib.sha256(read_uri(uri)).hexdigest())

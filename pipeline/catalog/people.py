"""Which people a run is about: all, those of a shard, or those that a catalog of news names.

So that neither the listing nor what OUTPUT remembers has to lie in memory whole.
"""

import hashlib
from collections.abc import Callable, Iterable

from pipeline.catalog.photos import Catalog
from pipeline.config import OperationSettings
from pipeline.errors import ConfigurationError

Takes = Callable[[str], bool]
"""Says of an identity whether this run is about it."""


def shard_takes(shard: str | None) -> Takes | None:
    """The people of one shard, e.g. ``3/16``; None: all of them.

    By a hash of the name, so that each person belongs to one shard, the same in every run. Names
    that differ in case alone go together: their output keys must be told apart.
    """
    if shard is None:
        return None
    number, count = map(int, shard.split("/"))

    def takes(identity: str) -> bool:
        digest = hashlib.sha256(identity.casefold().encode(errors="surrogateescape")).digest()
        return int.from_bytes(digest[:8]) % count == number - 1

    return takes


def people_of(catalog: Catalog, operation: OperationSettings) -> Takes | None:
    """Whose decisions a plan has to know; None: everybody's.

    Raises:
        ConfigurationError: Part of the people only, and a catalog that gives output keys, which
            have to be compared with those of everybody.
    """
    if operation.shard is None and not operation.increment:
        return None
    option = "--increment" if operation.increment else "--shard"
    if catalog.given_keys:
        raise ConfigurationError(
            f"{option} reads what OUTPUT knows of some people only, so it cannot tell whether an "
            "output_key of the catalog is another person's: leave the column output_key or "
            f"{option} out"
        )
    if not operation.increment:
        return shard_takes(operation.shard)
    if not catalog.from_file:
        raise ConfigurationError(
            "--increment: INPUT has to be a catalog file (.csv, .parquet) of what is new, since "
            "what it does not name is left as it is"
        )
    return _named(photo.identity for photo in catalog.photos)


def _named(identities: Iterable[str]) -> Takes:
    names = {identity.casefold() for identity in identities}
    return lambda identity: identity.casefold() in names

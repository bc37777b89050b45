"""Whom OUTPUT has forgotten: it recognises their names without keeping them.

Knows ``forgotten/key`` and ``forgotten/<hash>.json``, an object per name: its HMAC-SHA256 under a
random key of this OUTPUT. Who can read OUTPUT can test a guess, but read no name.
"""

import hashlib
import hmac
import json
import secrets
from collections.abc import Iterable

from pipeline.clock import utc_now
from pipeline.errors import PipelineError
from pipeline.storage.store import Store

_FOLDER, _KEY = "forgotten/", "forgotten/key"


class Tombstones:
    """The forgotten names of one OUTPUT, as they were when this was made."""

    def __init__(self, store: Store) -> None:
        """Reads one listing, and the key where anybody was forgotten."""
        keys = {info.key for info in store.list(_FOLDER)}
        self._keys = keys - {_KEY}
        self._secret = store.read(_KEY) if self._keys else b""
        self._known: dict[str, bool] = {}

    def hold(self, identity: str) -> bool:
        """Whether this person was forgotten and must not be taken again."""
        if not self._keys:
            return False
        if identity not in self._known:
            self._known[identity] = _key_of(identity, self._secret) in self._keys
        return self._known[identity]


def bury(store: Store, identities: Iterable[str]) -> None:
    """Makes OUTPUT refuse these people from now on."""
    if not store.exists(_KEY):
        store.create_exclusive(_KEY, secrets.token_hex(32).encode())
    secret = store.read(_KEY)
    if not secret:
        raise PipelineError(f"{store.uri_of(_KEY)} is empty: was it edited?")
    content = json.dumps({"forgotten_at": utc_now()}).encode()
    for identity in identities:
        store.write(_key_of(identity, secret), content)


def readmit(store: Store, identities: Iterable[str]) -> int:
    """Takes these people's tombstones away; says how many there were."""
    if not store.exists(_KEY):
        return 0
    secret = store.read(_KEY)
    keys = [_key_of(identity, secret) for identity in identities]
    there = [key for key in keys if store.exists(key)]
    store.delete(there)
    return len(there)


def _key_of(identity: str, secret: bytes) -> str:
    return f"{_FOLDER}{hmac.new(secret, identity.encode(), hashlib.sha256).hexdigest()}.json"

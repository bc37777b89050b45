"""Folders of ``images/`` that do not say whose photos they hold: ``operation.identity_keys: hmac``.

Knows ``identity_keys.json`` in OUTPUT, which says that folders are hidden and by which key, as a
check value. The key itself comes from the environment and is kept nowhere.
"""

import hashlib
import hmac
import json
import os
from collections.abc import Callable, Mapping
from functools import lru_cache

from pipeline.catalog.output_keys import encode_segment
from pipeline.config import OperationSettings
from pipeline.errors import ConfigurationError
from pipeline.output.manifest_parts import part_keys
from pipeline.storage.store import Store

KEY_VARIABLE = "DLADIFF_IDENTITY_KEY"
"""Environment variable of the driver with the secret; workers never need it."""

_MIN_KEY_BYTES = 16
_FILE = "identity_keys.json"
_HEX = 32
"""Hex digits that are kept of 64: 128 bits tell all people apart."""
_CACHED = 1 << 14
"""Names whose folder is remembered: a listing has a person's photos together."""


def folder_rule(
    operation: OperationSettings,
    store: Store,
    environment: Mapping[str, str] = os.environ,
) -> Callable[[str], str]:
    """Says in which folder of ``images/`` this OUTPUT keeps a person's photos; writes nothing.

    Hidden, it is an HMAC-SHA256 of the identity: file names below it stay, and so do keys that a
    person gave in a catalog file.

    Raises:
        ConfigurationError: OUTPUT was begun otherwise or with another key, or there is no key.
    """
    key = _key(operation, environment)
    _require_same_choice(store, key)
    if key is None:
        return lru_cache(_CACHED)(encode_segment)
    secret = key
    return lru_cache(_CACHED)(lambda identity: _digest(secret, identity)[:_HEX])


def record_identity_keys(
    store: Store, operation: OperationSettings, environment: Mapping[str, str] = os.environ
) -> None:
    """Binds OUTPUT to hidden folders and this key, before its first photo; once is enough."""
    key = _key(operation, environment)
    if key is not None and not store.exists(_FILE):
        store.create_exclusive(_FILE, json.dumps(_record(key), sort_keys=True).encode())


def _key(operation: OperationSettings, environment: Mapping[str, str]) -> bytes | None:
    if operation.identity_keys == "plain":
        return None
    key = environment.get(KEY_VARIABLE, "").encode()
    if len(key) < _MIN_KEY_BYTES:
        raise ConfigurationError(
            f"operation.identity_keys is hmac: put its secret, at least {_MIN_KEY_BYTES} "
            f"characters, into the environment variable {KEY_VARIABLE}, the same in every run"
        )
    return key


def _require_same_choice(store: Store, key: bytes | None) -> None:
    try:
        found = json.loads(store.read(_FILE))
    except FileNotFoundError:
        if key is not None and next(part_keys(store), None) is not None:
            raise ConfigurationError(
                f"{store.uri} holds photos under the names of people: choose a new OUTPUT for "
                "operation.identity_keys: hmac, or leave that out"
            ) from None
        return
    if key is None:
        raise ConfigurationError(
            f"{store.uri} was begun with operation.identity_keys: hmac: set it, so that no name "
            "gets into images/"
        )
    if found != _record(key):
        raise ConfigurationError(
            f"the secret in {KEY_VARIABLE} is not the one that {store.uri} was begun with: "
            "another one would put people's new photos into second folders"
        )


def _record(key: bytes) -> dict[str, str]:
    return {"identity_keys": "hmac", "key_check": _digest(key, "\0dladiff key check")[:_HEX]}


def _digest(key: bytes, text: str) -> str:
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()

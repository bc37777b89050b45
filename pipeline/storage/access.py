"""Whether what a command is about to write to can be written: asked before any work."""

import os
import shutil
import tempfile
from contextlib import suppress

from pipeline.errors import ConfigurationError, StoreDenied
from pipeline.storage.store import Store
from pipeline.storage.uris import split_uri

_MIN_FREE_BYTES = 50 * 10**6
"""Of temporary files: what processes say as they end, and the sockets between them."""


def require_writable(store: Store, name: str = "OUTPUT") -> bool:
    """Writes a small object below ``locks/`` and deletes it again.

    Args:
        store: A folder or bucket.
        name: What a person calls it.

    Returns:
        Whether the store honours exclusive creation, see ``Store.probe_exclusive_creation``.

    Raises:
        ConfigurationError: If it is a folder that this user cannot write, or no such bucket.
        EnvironmentTrouble: If a bucket denies it, or does not answer.
    """
    is_local = split_uri(store.uri)[0] == "file"
    # Some stores make a bucket for whoever writes into one that is not there: a misspelt name.
    if not is_local and not store.root_exists():
        raise no_such_bucket(store, name)
    try:
        return store.probe_exclusive_creation()
    except (FileNotFoundError, StoreDenied) as error:
        if not is_local:
            raise
        cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
        why = getattr(cause, "strerror", None) or "no files can be made there"
        raise ConfigurationError(
            f"{name} {store.uri} cannot be written: {why}: give a folder that this user may make "
            "and write"
        ) from error


def no_such_bucket(store: Store, name: str) -> ConfigurationError:
    """What to raise where ``store.root_exists()`` is false; ``name``: what a person calls it."""
    return ConfigurationError(
        f"{name} {store.uri}: there is no such bucket, or no access to it: make it, or correct its "
        "name or the credentials"
    )


def temporary_folder(max_letters: int | None = None) -> str:
    """A folder for temporary files: ``TMPDIR``, else one of the usual ones.

    Args:
        max_letters: Of its path; None: any number. Sockets have names of at most 107 letters.

    Raises:
        ConfigurationError: If none can be written or has room, with what was asked.
    """
    asked = [os.environ.get("TMPDIR"), "/tmp", "/var/tmp", "/dev/shm"]
    folders = dict.fromkeys(folder for folder in asked if folder)
    for folder in folders:
        if max_letters is None or len(folder) <= max_letters:
            with suppress(OSError):
                if shutil.disk_usage(folder).free >= _MIN_FREE_BYTES:
                    with tempfile.NamedTemporaryFile(dir=folder) as file:
                        file.write(b"probe")
                    return folder
    short = f" with a path of at most {max_letters} letters" if max_letters else ""
    raise ConfigurationError(
        f"no folder for temporary files{short} can be written or has "
        f"{_MIN_FREE_BYTES // 10**6} MB free, of {', '.join(folders)}: free some space, or set "
        "TMPDIR to another one"
    )


def use_temporary_folder() -> None:
    """Lets this process and those that it starts make temporary files where they can.

    Raises:
        ConfigurationError: As ``temporary_folder``.
    """
    os.environ["TMPDIR"] = temporary_folder()
    tempfile.tempdir = None  # Python looks anew

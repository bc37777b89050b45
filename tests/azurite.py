"""Azure's storage emulator for tests, Microsoft's own: blobs in memory, a key made up each time."""

import base64
import contextlib
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from azure.storage.blob import BlobServiceClient

from tests.needed_tools import missing
from tools.trial.programs import Program, free_ports

CONTAINER = "tests"
_ACCOUNT = "tester"
_OPTIONS = ("--inMemoryPersistence", "--disableTelemetry", "--skipApiVersionCheck", "--silent")


@contextlib.contextmanager
def running_azurite(folder: Path) -> Iterator[str]:
    """A connection string, in this process's environment too, until the block ends."""
    command = shutil.which("azurite-blob")
    if command is None:
        missing("no azurite-blob: npm install --global azurite")
    [port] = free_ports(1)
    key = base64.b64encode(os.urandom(32)).decode()
    server = Program(
        [command, "--blobPort", str(port), *_OPTIONS],
        folder / "log",
        {"AZURITE_ACCOUNTS": f"{_ACCOUNT}:{key}"},
    )
    connection = (
        f"DefaultEndpointsProtocol=http;AccountName={_ACCOUNT};AccountKey={key};"
        f"BlobEndpoint=http://127.0.0.1:{port}/{_ACCOUNT};"
    )
    try:
        server.start()
        server.wait_until(lambda: _listens(port))
        with BlobServiceClient.from_connection_string(connection) as client:
            client.create_container(CONTAINER)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AZURE_STORAGE_CONNECTION_STRING", connection)
            yield connection
    finally:
        server.kill()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0

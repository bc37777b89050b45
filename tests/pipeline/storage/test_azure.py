"""Azure Blob Storage, as far as Microsoft's emulator shows it: troubles, addresses, folders."""

import os
import sys
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from azure.storage.blob import BlobServiceClient, ContainerClient

from pipeline.errors import ConfigurationError, StoreDenied, StoreUnreachable
from pipeline.storage.azure import AzurePrefix
from pipeline.storage.store import HASH_METADATA, Store, open_store
from tests.azurite import CONTAINER
from tools.trial.programs import free_ports

CONNECTION = "AZURE_STORAGE_CONNECTION_STRING"


@pytest.fixture
def container(azure_container: str) -> Iterator[ContainerClient]:
    """A client of its own, to check what really lies there."""
    with BlobServiceClient.from_connection_string(os.environ[CONNECTION]) as service:
        yield service.get_container_client(CONTAINER)


def operations(uri: str) -> list[Callable[[], Any]]:
    """Everything that a run asks of a store, with little patience."""
    store = Store(uri, retry_delays_s=(0.01,))
    return [
        lambda: store.read("a"),
        lambda: store.info("a"),
        lambda: store.write("a", b"x"),
        lambda: store.create_exclusive("a", b"x"),
        lambda: [*store.list()],
        lambda: [*store.folders()],
        lambda: store.sha256_of("a", read=True),
        lambda: store.delete(["a"]),
    ]


def connection(**changed: str) -> str:
    """The connection string with other parts."""
    parts = dict(part.split("=", 1) for part in os.environ[CONNECTION].strip(";").split(";"))
    return ";".join(f"{name}={value}" for name, value in (parts | changed).items())


def test_a_container_that_is_not_there_is_never_an_empty_one(azure_container: str) -> None:
    assert not open_store("abfs://not-there/in").root_exists()
    for operation in operations("abfs://not-there/in")[:-1]:  # what is not there is deleted
        with pytest.raises(StoreUnreachable, match="bucket does not exist"):
            operation()


def test_a_wrong_key_is_denied_and_never_shown(
    azure_container: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = "AAAA" * 11
    monkeypatch.setenv(CONNECTION, connection(AccountKey=wrong))
    for operation in operations(f"{azure_container}/in"):
        with pytest.raises(StoreDenied) as trouble:
            operation()
        assert wrong not in str(trouble.value)


def test_a_dead_server_is_unreachable(
    azure_container: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    [port] = free_ports(1)
    monkeypatch.setenv(CONNECTION, connection(BlobEndpoint=f"http://127.0.0.1:{port}/tester"))
    for operation in operations(f"{azure_container}/in"):
        with pytest.raises(StoreUnreachable):
            operation()


def test_a_published_image_says_what_it_is(
    azure_container: str, container: ContainerClient
) -> None:
    prefix = uuid.uuid4().hex
    store = Store(f"{azure_container}/{prefix}")
    store.write("staged", b"png")
    sha256 = store.sha256_of("staged")
    store.copy_published("staged", "images/1.png", sha256)
    found = container.get_blob_client(f"{prefix}/images/1.png").get_blob_properties()
    assert found.content_settings.content_type == "image/png"
    assert found.metadata == {HASH_METADATA.replace("-", "_"): sha256}


def test_placeholders_of_folders_are_no_photos(
    azure_container: str, container: ContainerClient
) -> None:
    prefix = uuid.uuid4().hex
    container.upload_blob(f"{prefix}/ann/", b"")
    container.upload_blob(f"{prefix}/bob", b"", metadata={"hdi_isfolder": "true"})
    container.upload_blob(f"{prefix}/ann/1.jpg", b"jpeg")
    store = Store(f"{azure_container}/{prefix}")
    assert [info.key for info in store.list()] == ["ann/1.jpg"]
    assert [*store.folders()] == ["ann"]
    assert not store.exists("bob")


def test_more_blobs_are_deleted_than_a_request_may(azure_container: str) -> None:
    store = Store(f"{azure_container}/{uuid.uuid4().hex}")
    for number in range(260):
        store.write(f"{number}", b"")
    store.delete([*(f"{number}" for number in range(260)), "none"])
    assert [*store.list()] == []


def test_the_account_comes_from_the_address_or_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [name for name in os.environ if name.startswith("AZURE_")]:
        monkeypatch.delenv(name)
    with pytest.raises(ConfigurationError, match="needs an account"):
        open_store("abfs://photos/in").read("1.jpg")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "AAAA" * 11)
    named = AzurePrefix("photos@album.dfs.core.windows.net", "in")
    assert named._client().url == "https://album.blob.core.windows.net/photos"
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "uploads")
    assert AzurePrefix("photos", "in")._client().url == (
        "https://uploads.blob.core.windows.net/photos"
    )
    monkeypatch.setenv(CONNECTION, "AccountKey=secret")
    with pytest.raises(ConfigurationError, match="not a connection string") as error:
        open_store("abfs://photos/in").read("1.jpg")
    assert "secret" not in str(error.value)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "not-asked-before")
    monkeypatch.setitem(sys.modules, "azure.storage.blob", None)
    with pytest.raises(ConfigurationError, match=r"dladiff\[azure\]"):
        open_store("abfs://container/in").read("1.jpg")

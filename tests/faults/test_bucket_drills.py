"""The real command from bucket to bucket, killed or without its store, and audited from outside."""

import contextlib
import sys
import time
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import boto3
import pytest

from tests.faults.gateway import gateway_to
from tests.faults.outside_audit import Bucket, audit
from tests.sample_photos import encode, face_images
from tests.seaweed import BUCKET, running_server
from tests.waiting import until
from tools.trial.object_store import Seaweed
from tools.trial.programs import Program

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1800)]

PEOPLE = "abcd"
"""With two photos each, a set a person."""
AWAY_S = 300.0
LIMIT_S = 400.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    with running_server(tmp_path_factory.mktemp("weed")) as server:
        yield server


class BucketRun:
    """Photos in a prefix of the bucket, and the command that protects them into another."""

    def __init__(self, folder: Path) -> None:
        """Puts the photos there; runs nothing yet."""
        self._folder, self._prefix = folder, uuid.uuid4().hex[:12]
        self.photos, self.output = f"{self._prefix}/in/", f"{self._prefix}/out/"
        self.bucket = Bucket(BUCKET)
        client = boto3.client("s3")
        for person, name in enumerate(PEOPLE):
            for number, image in enumerate(face_images(2, person)):
                body = encode(image, "PNG")
                client.put_object(Bucket=BUCKET, Key=f"{self.photos}{name}/{number}.png", Body=body)

    def start(self, environment: dict[str, str] | None = None) -> Program:
        """Begins the command, or the same again."""
        places = [f"s3://{BUCKET}/{place.rstrip('/')}" for place in (self.photos, self.output)]
        command = [str(Path(sys.executable).with_name("dladiff")), "protect", *places]
        command += ["--preset", "zero-shot", "--canary", "0", "--workers", "1"]
        command += ["--set=loop.num_steps=20", "--set=threads=1", "--set=lock_ttl_s=20", "--wait"]
        program = Program(command, self._folder / "log", environment)
        program.start()
        return program

    def has_commits(self, least: int) -> bool:
        """Whether so many photo sets are decided."""
        return sum("/commits/" in key for key in self.bucket.sizes(f"{self.output}runs/")) >= least

    def wrong(self) -> list[str]:
        """What an audit from outside finds."""
        return audit(self.bucket, self.photos, self.output)


@contextlib.contextmanager
def killed_in_the_end(program: Program) -> Iterator[Program]:
    try:
        yield program
    finally:
        program.kill()


@pytest.mark.usefixtures("server")
def test_an_audit_from_outside_finds_nothing_after_kills_and_whatever_is_then_broken(
    tmp_path: Path,
) -> None:
    run = BucketRun(tmp_path)
    for num_commits in (1, 2):
        with killed_in_the_end(run.start()) as program:
            until(partial(run.has_commits, num_commits), LIMIT_S)
            assert program.is_running, program.log.read_text()
    assert run.wrong()
    with killed_in_the_end(run.start()) as program:
        assert program.wait(LIMIT_S) == 0, program.log.read_text()
    assert run.wrong() == []

    client = boto3.client("s3")
    image, other = (f"{run.output}images/{name}/0.png" for name in "ab")
    kept = run.bucket.read(image)

    def put(key: str, content: bytes) -> list[str]:
        client.put_object(Bucket=BUCKET, Key=key, Body=content)
        return run.wrong()

    assert put(image, kept + b"\0")  # other bytes
    assert put(image, run.bucket.read(other))  # another person's photo
    assert put(image, kept) == []
    assert put(f"{run.output}images/a/9.png", kept)
    client.delete_object(Bucket=BUCKET, Key=f"{run.output}images/a/9.png")
    assert put(f"{run.photos}a/9.png", kept)  # a photo that nobody decided on
    client.delete_object(Bucket=BUCKET, Key=f"{run.photos}a/9.png")
    client.delete_object(Bucket=BUCKET, Key=image)
    assert run.wrong() == [f"s3://{BUCKET}/{run.photos}a/0.png: its file is missing"]


def test_a_store_that_is_away_for_five_minutes_costs_the_command_five_minutes(
    server: Seaweed, tmp_path: Path
) -> None:
    """Driver and worker lose it alike; the lock's life of 20 s passes many times."""
    with gateway_to(server.port) as (gateway, url):
        run = BucketRun(tmp_path)
        with killed_in_the_end(run.start({"AWS_ENDPOINT_URL": url})) as program:
            until(partial(run.has_commits, 1), LIMIT_S)
            gateway.decide = lambda number: "drop"
            time.sleep(AWAY_S)
            assert program.is_running, program.log.read_text()
            gateway.decide = lambda number: "pass"
            back = time.monotonic()
            assert program.wait(LIMIT_S) == 0, program.log.read_text()
            assert time.monotonic() - back < 120
    assert "deferred" not in program.log.read_text()
    assert run.wrong() == []

"""Troubles of a real S3 server while a run writes to it: killed, throttling, dropping, refusing."""

import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.errors import EnvironmentTrouble
from pipeline.storage.store import Store
from tests.faults.album import PHOTOS, check_all_protected_once, num_decided, write_photos
from tests.faults.gateway import Answer, Gateway, gateway_to
from tests.pipeline.mortal_run import run
from tests.seaweed import BUCKET, running_server
from tools.trial.object_store import Seaweed

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    with running_server(tmp_path_factory.mktemp("weed")) as server:
        yield server


@pytest.fixture(scope="module")
def gateway_and_url(server: Seaweed) -> Iterator[tuple[Gateway, str]]:
    with gateway_to(server.port) as both:
        yield both


@pytest.fixture
def gateway(
    gateway_and_url: tuple[Gateway, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Gateway]:
    """Passes everything, and counts from 1 in each test."""
    gateway, url = gateway_and_url
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    gateway.num_requests, gateway.decide = 0, lambda number: "pass"
    yield gateway
    gateway.decide = lambda number: "pass"


@pytest.fixture
def output() -> Store:
    return Store(f"s3://{BUCKET}/{uuid.uuid4().hex[:12]}")


@pytest.fixture
def album(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "in")


def run_and_again(output: Store, album: Path, heal: Callable[[], object] | None = None) -> int:
    """Runs the same command until nothing is left, as a schedule would; says how many it took."""
    computed: list[int] = []
    for number in range(1, 6):
        decided = num_decided(output) if number > 1 else 0
        try:
            outcome = run(output, "drill", album, computed)
        except EnvironmentTrouble:
            code = 3
        else:
            code = outcome.exit_code
        assert computed[-1] <= len(PHOTOS) - decided
        if code == 0:
            assert sum(computed) <= len(PHOTOS) + 2 * (number - 1)  # a set in flight each time
            return number
        assert code == 3
        if heal is not None:
            heal()
    raise AssertionError("it never came to an end")


def test_throttling_and_lost_connections_are_waited_for(
    gateway: Gateway, output: Store, album: Path
) -> None:
    generator = random.Random(0)
    answers: list[Answer] = ["pass", "throttle", "drop"]
    gateway.decide = lambda number: generator.choices(answers, weights=(6, 1, 1))[0]
    assert run_and_again(output, album) == 1
    check_all_protected_once(output)


@pytest.mark.parametrize("trouble", ["expire", "deny"])
@pytest.mark.parametrize("good_requests", [25, 60, 100])
def test_credentials_that_expire_end_the_run_and_new_ones_go_on(
    gateway: Gateway, output: Store, album: Path, good_requests: int, trouble: Answer
) -> None:
    gateway.decide = lambda number: "pass" if number <= good_requests else trouble

    def renew() -> None:
        assert gateway.num_requests > good_requests
        gateway.decide = lambda number: "pass"

    assert run_and_again(output, album, renew) == 2
    check_all_protected_once(output)


def test_a_server_that_is_killed_and_comes_back_loses_nothing(
    server: Seaweed, gateway: Gateway, output: Store, album: Path
) -> None:
    """Through the gateway only to count: while the server is dead it drops connections."""
    dead, back = threading.Event(), threading.Event()

    def decide(number: int) -> Answer:
        if number == 50 and not dead.is_set():
            dead.set()
            server.kill()
            threading.Thread(target=come_back, daemon=True).start()
        return "pass"

    def come_back() -> None:
        time.sleep(1)
        server.start()
        back.set()

    gateway.decide = decide
    run_and_again(output, album, lambda: back.wait(100))
    assert dead.is_set()
    check_all_protected_once(output)


@pytest.mark.parametrize("away_s", [45, 300])
def test_a_store_that_is_away_for_minutes_costs_these_minutes(
    gateway: Gateway, output: Store, album: Path, away_s: float
) -> None:
    """Longer than half the lock's life of 60 s, so that the lock itself has to be regained."""
    away_since: list[float] = []

    def decide(number: int) -> Answer:
        if number == 60:
            away_since.append(time.monotonic())
        is_away = away_since and time.monotonic() - away_since[0] < away_s
        return "drop" if is_away else "pass"

    gateway.decide = decide
    outcome = run(output, "drill", album, [])
    assert outcome.exit_code == 0
    assert outcome.counts == {"protected": len(PHOTOS)}  # nothing was put off to the second try
    assert outcome.causes == {}
    assert time.monotonic() - away_since[0] < away_s + 60
    check_all_protected_once(output)

"""Ray's own start on a busy machine with a long TMPDIR and a proxy; progress of a run on it."""

import os
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from pipeline import ray_pool
from pipeline.config import load_config
from pipeline.errors import BrokenSetup
from pipeline.output.manifest import newest_state
from pipeline.run import run_protection
from pipeline.storage.store import open_store
from pipeline.worker.protector import LoadProtector
from tests.pipeline import stepping
from tests.sample_photos import encode, photo_image, write_album

import ray  # isort: skip  # after the pool: Ray reads its environment when it is imported

pytestmark = pytest.mark.slow

DEAD_PROXY = "http://127.0.0.1:9"
"""Nobody answers there: what went through it would fail."""


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The logs' folder of a Ray that was started in a hard environment."""
    long = tmp_path_factory.mktemp("x" * 60)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(long))
        patch.setattr(tempfile, "tempdir", None)
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "grpc_proxy"):
            patch.setenv(name, DEAD_PROXY)
        for name in ("no_proxy", "NO_PROXY"):
            patch.setenv(name, "example.org")
        patch.setenv(ray_pool._WAIT_FOR_PORT, "1")
        patch.delenv("RAY_TMPDIR", raising=False)
        patch.setattr(os, "getloadavg", lambda: (2.5 * (os.cpu_count() or 1), 0.0, 0.0))
        ray.cloudpickle.register_pickle_by_value(stepping)  # which workers cannot import
        yield ray_pool.start_local(num_cpus=3)
        ray.shutdown()


def test_its_session_lies_where_sockets_have_short_names(logs: Path) -> None:
    assert logs.is_dir()
    assert "x" * 60 not in str(logs)
    assert max(len(str(path)) for path in (logs.parent / "sockets").iterdir()) <= 107


def test_no_proxy_is_asked_for_this_machine(logs: Path) -> None:
    address: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    for name in ("no_proxy", "NO_PROXY"):
        spared = os.environ[name].split(",")
        assert spared[0] == "example.org"
        assert {"localhost", "127.0.0.1", address} <= set(spared)


def test_it_waits_longer_the_more_the_machine_has_to_do(
    logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert os.environ[ray_pool._WAIT_FOR_PORT] == "75"
    for load, seconds in ((0.0, 30), (1.0, 30), (10.0, 300), (100.0, 600)):
        monkeypatch.setattr(
            os, "getloadavg", lambda load=load: (load * (os.cpu_count() or 1), 0, 0)
        )
        assert ray_pool._patience_s() == seconds


def test_steps_within_a_set_are_seen_while_a_worker_of_ray_works(
    logs: Path, tmp_path: Path
) -> None:
    album = write_album(tmp_path / "in", {"ann/1.png": encode(photo_image(64, 64), "PNG")})
    few = ["workers=1", "threads=1", "worker_memory_gb=0.1", "canary.num_sets=0"]
    config, output = load_config("zero-shot", overrides=few), str(tmp_path / "out")
    pool = ray_pool.RayPool(partial(stepping.load_stepping, step_s=2.0))
    seen = stepping.parts_seen(
        lambda tally: run_protection(str(album), output, config, None, None, tally, pool)
    )
    assert len(seen) >= 2
    assert {state.status for state in newest_state(open_store(output)).values()} == {"protected"}


@pytest.mark.parametrize(
    ("load", "why"),
    [
        (stepping.load_nothing, "workers protect nothing: no such weights"),
        (stepping.load_failing, "not even the built-in photo was protected: never works"),
    ],
)
def test_workers_of_ray_that_protect_nothing_end_the_run_with_the_reason(
    logs: Path, tmp_path: Path, load: LoadProtector, why: str
) -> None:
    album = write_album(
        tmp_path / "in", {f"{who}/1.png": encode(photo_image(64, 64), "PNG") for who in "ab"}
    )
    few = ["workers=1", "threads=1", "worker_memory_gb=0.1", "canary.num_sets=0"]
    config, output = load_config("zero-shot", overrides=few), str(tmp_path / "out")
    with pytest.raises(BrokenSetup) as raised:
        run_protection(str(album), output, config, pool=ray_pool.RayPool(load))
    assert str(raised.value).endswith(why)
    assert not newest_state(open_store(output))


def test_each_worker_of_ray_loads_its_models_once(logs: Path, tmp_path: Path) -> None:
    """No process before the pool's own loads them too."""
    album = write_album(
        tmp_path / "in",
        {f"{who}/1.png": encode(photo_image(64, 64, n), "PNG") for n, who in enumerate("abcdef")},
    )
    few = ["workers=2", "threads=1", "worker_memory_gb=0.1", "canary.num_sets=0"]
    config, loads = load_config("zero-shot", overrides=few), tmp_path / "loads"
    loads.mkdir()
    pool = ray_pool.RayPool(partial(stepping.load_counted, folder=loads))
    outcome = run_protection(str(album), str(tmp_path / "out"), config, pool=pool)
    assert outcome.counts == {"protected": 6}
    assert 1 <= len(list(loads.iterdir())) <= 2

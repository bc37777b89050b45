"""What a cluster's nodes are asked, and what is said of their answers."""

import os
from functools import partial
from pathlib import Path

import pytest

from pipeline import ray_pool
from pipeline.config import load_config
from pipeline.inspection.check_nodes import environment, look, node_checks
from tests.pipeline.protected_album import ProtectedAlbum

import ray  # isort: skip  # after the pool: Ray reads its environment when it is imported

FINE = {"environment": environment(), "auth": "token", "niceness": "0", "INPUT": "", "OUTPUT": ""}


def test_an_open_cluster_is_said_loudly() -> None:
    [check] = node_checks({}, {})
    assert not check.ok
    assert "OPEN" in check.detail
    assert "RAY_AUTH_MODE=token" in str(check.remedy)
    assert node_checks({}, {"RAY_AUTH_MODE": "token"})[0].ok


@pytest.mark.parametrize(
    ("answer", "ok", "said"),
    [
        (FINE, True, "dladiff"),
        (FINE | {"niceness": "15"}, True, "niceness 15"),
        (FINE | {"environment": "Python 3.12.1, dladiff 0.0.9, abc"}, False, "0.0.9"),
        (FINE | {"auth": ""}, False, "OPEN"),
        (FINE | {"models": "sface missing"}, False, "models: sface missing"),
        (FINE | {"INPUT": "store_denied: no"}, False, "INPUT: store_denied"),
        (FINE | {"OUTPUT": "store_unreachable: no"}, False, "OUTPUT: store_unreachable"),
        ({"trouble": "ModuleNotFoundError: No module named 'pipeline'"}, False, "No module"),
    ],
)
def test_each_node_is_judged_with_a_remedy(answer: dict[str, str], ok: bool, said: str) -> None:
    check = node_checks({"10.0.0.7:1": answer}, {})[1]
    assert (check.name, check.ok) == ("node 10.0.0.7:1", ok)
    assert said in check.detail
    assert ok or check.remedy


def test_a_node_too_small_for_a_worker_and_a_reader_is_named() -> None:
    told = {"small:1": FINE, "head:1": FINE, "fits:1": FINE}
    cpus = {"small:1": 4.0, "head:1": 0.0, "fits:1": 8.0}
    checks = {one.name: one for one in node_checks(told, {}, cpus, threads=4)[1:]}
    assert [one.ok for one in checks.values()] == [True, True, False]
    assert "4 CPUs hold no worker of 4" in checks["node small:1"].detail


def test_a_look_tells_of_this_process_and_of_the_places(tmp_path: Path) -> None:
    album = ProtectedAlbum(tmp_path)
    found = look(str(album.input), str(album.output))
    auth = os.environ.get("RAY_AUTH_MODE", "")
    assert found == FINE | {"niceness": str(os.nice(0)), "auth": auth}
    assert not [*album.store.list("locks/")]
    method = load_config("zero-shot").method
    assert look(None, None, method)["models"] == ""
    lacking = method.changed("detector.kind=insightface", "detector.pack=/nowhere")
    assert "detector" in look(None, None, lacking)["models"]
    assert look(str(tmp_path / "nowhere"), str(tmp_path / "yet"))["INPUT"] == "is not there"
    assert look(None, str(tmp_path / "yet"))["OUTPUT"] == ""


def test_a_node_of_a_real_ray_answers(tmp_path: Path) -> None:
    album = ProtectedAlbum(tmp_path)
    ray_pool.start_local(num_cpus=1)
    try:
        answers = ray_pool.ask_nodes(partial(look, str(album.input), str(album.output)))
        [answer] = answers.values()
        assert isinstance(answer, dict)
        assert answer["environment"] == environment()
        assert (answer["INPUT"], answer["OUTPUT"]) == ("", "")

        def fails() -> dict[str, str]:
            raise ModuleNotFoundError("No module named 'pipeline'")

        [trouble] = ray_pool.ask_nodes(fails).values()
        assert "No module named" in str(trouble)
    finally:
        ray.shutdown()

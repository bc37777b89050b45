"""What a cluster's nodes are asked, and what is said of their answers."""

import os
from functools import partial
from pathlib import Path

import pytest

from pipeline import ray_pool
from pipeline.inspection.check_nodes import environment, look, node_checks
from tests.pipeline.protected_album import ProtectedAlbum

import ray  # isort: skip  # after the pool: Ray reads its environment when it is imported

FINE = {"environment": environment(), "niceness": "0", "INPUT": "", "OUTPUT": ""}


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


def test_a_look_tells_of_this_process_and_of_the_places(tmp_path: Path) -> None:
    album = ProtectedAlbum(tmp_path)
    found = look(str(album.input), str(album.output))
    assert found == FINE | {"niceness": str(os.nice(0))}
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

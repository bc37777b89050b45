"""A set that eats all memory of its pod, ended by the kernel or by Ray's memory monitor."""

import contextlib
import sys
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.images.coding import decode_coded
from pipeline.output.manifest import newest_state
from pipeline.storage.store import open_store
from tests.faults.hungry_run import HUNGRY_HEIGHT
from tests.sample_photos import face_album
from tools.trial.programs import Program

pytestmark = pytest.mark.faults

ROOT = Path(__file__).resolve().parents[2]
LIMIT_BYTES = 3 * 1024**3


@dataclass
class Pod:
    """A group of processes that may use so much memory and no more."""

    group: Path

    @property
    def root(self) -> Path:
        return self.group.parent

    def inside(self) -> list[str]:
        """Runs a command in it; as in a container, it sees its own limit as the machine's."""
        enter = (
            f"echo $$ > {self.group}/cgroup.procs && mount --bind {self.group} {self.root} "
            '&& exec "$@"'
        )
        return ["unshare", "--mount", "sh", "-c", enter, "sh"]

    def num_kills(self) -> int:
        """Processes that the kernel has killed in it for want of memory."""
        for name in ("memory.events", "memory.oom_control"):
            if (self.group / name).exists():
                pairs = (line.split() for line in (self.group / name).read_text().splitlines())
                return {key: int(value) for key, value in pairs}["oom_kill"]
        raise AssertionError("neither version of the kernel's groups")


@pytest.fixture
def pod() -> Iterator[Pod]:
    first = Path("/sys/fs/cgroup/memory")
    root, limit = (
        (first, "memory.limit_in_bytes")
        if first.is_dir()
        else (Path("/sys/fs/cgroup"), "memory.max")
    )
    pod = Pod(root / f"drill-{uuid.uuid4().hex[:8]}")
    try:
        pod.group.mkdir()
        (pod.group / limit).write_text(str(LIMIT_BYTES))
    except OSError:
        pytest.skip("this machine lets nobody limit memory: needs root and memory cgroups")
    yield pod
    with contextlib.suppress(OSError):
        pod.group.rmdir()


@pytest.mark.parametrize("ended_by", ["the kernel", "Ray's memory monitor"])
def test_a_set_that_eats_all_memory_is_quarantined_and_the_rest_protected(
    tmp_path: Path, pod: Pod, ended_by: str
) -> None:
    album, output = tmp_path / "in", tmp_path / "out"
    for identity, side in {"a": 200, "b": 200, "hungry": HUNGRY_HEIGHT, "z": 200}.items():
        face_album(album, {identity: 1}, side)
    is_kernel = ended_by == "the kernel"
    with tempfile.TemporaryDirectory(prefix="h-", ignore_cleanup_errors=True) as short:
        environment = {"RAY_TMPDIR": short, "RAY_memory_usage_threshold": "0.9"}
        if is_kernel:
            environment["RAY_memory_monitor_refresh_ms"] = "0"
        module = [sys.executable, "-m", "tests.faults.hungry_run", str(album), str(output)]
        environment["PYTHONPATH"] = str(ROOT)
        run = Program([*pod.inside(), *module], tmp_path / "log", environment)
        run.start()
        try:
            assert run.wait(300) == 2, run.log.read_text()  # more failed than max_failed allows
        finally:
            run.kill()
    assert (pod.num_kills() > 0) == is_kernel
    states = newest_state(open_store(str(output))).values()
    assert {state.identity: state.status for state in states} == {
        **dict.fromkeys("abz", "protected"),
        "hungry": "quarantined",
    }
    for identity in "abz":
        [original] = (album / identity).iterdir()
        [image] = (output / "images" / identity).iterdir()
        assert (decode_coded(image.read_bytes()) == 255 - decode_coded(original.read_bytes())).all()

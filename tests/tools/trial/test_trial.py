"""``make trial`` as a person runs it, without Grafana, and ended early."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.needed_tools import need
from tests.waiting import until
from tools.trial.programs import processes_with

pytestmark = pytest.mark.faults

ROOT = Path(__file__).resolve().parents[3]


@dataclass
class Machine:
    """What a trial may leave things on: a folder of temporary files, marked processes."""

    temporary: Path
    mark: str

    @property
    def environment(self) -> dict[str, str]:
        name, _, value = self.mark.partition("=")
        return os.environ | {"TMPDIR": str(self.temporary), name: value}

    def check_nothing_is_left(self) -> None:
        try:
            until(lambda: not processes_with(self.mark))  # the last command's helpers end after it
        except AssertionError as error:
            ids = ",".join(str(process_id) for process_id in processes_with(self.mark))
            left = subprocess.run(["ps", "-o", "args=", "-p", ids], capture_output=True, text=True)
            raise AssertionError(f"left running: {left.stdout}") from error
        assert [path.name for path in self.temporary.iterdir()] == []


@pytest.fixture
def machine() -> Iterator[Machine]:
    need("prometheus", package="prometheus")
    with tempfile.TemporaryDirectory(prefix="t-") as folder:  # Ray's sockets need short paths
        yield Machine(Path(folder), f"DLADIFF_TRIAL_TEST={uuid.uuid4().hex}")


def test_a_trial_protects_what_arrives_is_watched_and_leaves_nothing(machine: Machine) -> None:
    command = [sys.executable, "-m", "tools.trial.run", "--photos", "6", "--steps", "2"]
    done = subprocess.run(
        [*command, "--seconds-between", "2"],
        env=machine.environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    seen = done.stdout
    assert len(re.findall(r"\$ dladiff protect", seen)) >= 2
    assert re.search(r"OUTPUT +protected 6", seen)
    assert re.search(r"found +nothing wrong", seen)
    assert re.search(r"before the first run: \d+ loaded, firing: DladiffNoRunLately$", seen, re.M)
    assert re.search(r"in the end: \d+ loaded, firing: none$", seen, re.M)
    alive, panels = map(int, re.findall(r"dashboard: (\d+) of (\d+) panels", seen)[0])
    assert alive >= panels - 3, seen  # nothing was deferred; the smallest runs end between scrapes
    machine.check_nothing_is_left()


def test_ctrl_c_ends_a_trial_and_leaves_nothing(machine: Machine) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "tools.trial.run"],
        env=machine.environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as trial:
        assert trial.stdout is not None
        for line in trial.stdout:
            if "$ dladiff protect" in line:
                break
        trial.send_signal(signal.SIGINT)
        assert "nothing is left running" in trial.stdout.read()
        assert trial.wait(60) == 130
    machine.check_nothing_is_left()

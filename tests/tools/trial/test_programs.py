"""Programs end with whatever they started."""

import socket
import sys
from pathlib import Path

import pytest

from tests.waiting import until
from tools.trial.programs import GRPC_OFFSET, Program, free_ports, processes_with

LEAVES_HOME = """
import subprocess, sys, time
child = [sys.executable, "-c", "import time; time.sleep(600)"]
print(subprocess.Popen(child, start_new_session=True).pid, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="no /proc")
def test_a_killed_program_takes_children_of_other_sessions_along(tmp_path: Path) -> None:
    program = Program([sys.executable, "-c", LEAVES_HOME], tmp_path / "log", {"FAMILY": "of mine"})
    program.start()
    until(lambda: program.log.read_text().endswith("\n"))
    child = int(program.log.read_text())
    assert child in processes_with("FAMILY=of mine")
    program.kill()
    assert not program.is_running
    until(lambda: processes_with("FAMILY=of mine") == [])


def test_a_program_that_ends_before_it_is_ready_is_told_with_its_last_words(tmp_path: Path) -> None:
    program = Program(
        [sys.executable, "-c", "print('no room'); raise SystemExit(1)"], tmp_path / "log"
    )
    program.start()
    with pytest.raises(RuntimeError, match="has ended:\nno room"):
        program.wait_until(lambda: False)
    assert program.wait(10) == 1
    program.kill()


def test_free_ports_are_different_and_nobody_listens_there() -> None:
    ports = free_ports(5)
    assert len(set(ports)) == 5
    for port in [*ports, *(port + GRPC_OFFSET for port in ports)]:
        with socket.create_server(("127.0.0.1", port)):
            pass

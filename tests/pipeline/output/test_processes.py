"""A process is told from every other one, also from a later one with the same number."""

import dataclasses
import json
import subprocess
import sys

from pipeline.output.processes import this_process


def test_this_process_lives_and_another_with_its_number_does_not() -> None:
    here = this_process()
    assert here == this_process()
    assert here.is_gone() is False
    assert dataclasses.replace(here, process_started="1").is_gone() is True


def test_a_process_that_ended_is_gone_also_before_its_parent_looks() -> None:
    program = (
        "import dataclasses, json\n"
        "from pipeline.output.processes import this_process\n"
        "print(json.dumps(dataclasses.asdict(this_process())), flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        other = dataclasses.replace(this_process(), **json.load(child.stdout))
        child.stdout.read()
        while other.is_gone() is False:  # it closed its output and is about to end
            pass
        assert child.returncode is None
    assert other.is_gone() is True


def test_a_process_on_another_machine_can_t_be_judged() -> None:
    here = this_process()
    assert dataclasses.replace(here, host="another-pod").is_gone() is None
    assert dataclasses.replace(here, boot_id="before").is_gone() is None

"""The real command on a Ray cluster of several nodes whose nodes a drill takes away."""

import json
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.inspection.verify import verify_output
from pipeline.output.manifest import read_manifest
from pipeline.output.runs import unfinished_runs
from pipeline.storage.store import open_store
from tests.sample_photos import face_album
from tools.trial.programs import Program
from tools.trial.ray_nodes import RayCluster

PEOPLE = "abcdef"
"""With a photo each: six sets."""
NODE_CPUS = 2
_SETTINGS = {"loop.num_steps": 20, "threads": 1, "worker_memory_gb": 1}


@dataclass
class ClusterRun:
    """A run of one worker on a cluster, in folders of its own."""

    album: Path
    output: Path
    program: Program
    people: str = PEOPLE

    @property
    def num_commits(self) -> int:
        return len([*self.output.glob("runs/*/commits/*.json")])

    @property
    def num_attempts(self) -> int:
        """Of photo sets, those included that came to nothing."""
        names = [path.name for path in self.output.glob("runs/*/attempts/*/*.json")]
        return sum(not name.endswith(".closed.json") for name in names)

    def attempts(self) -> list[dict[str, Any]]:
        """Their records, in the order of their start."""
        paths = self.output.glob("runs/*/attempts/*/*.json")
        records = [json.loads(path.read_text()) for path in paths]
        begun = [record for record in records if "node" in record]
        return sorted(begun, key=lambda record: record["started_at"])

    def attempting_nodes(self) -> set[str]:
        """Ray's ids of the nodes that have begun a set."""
        return {record["node"] for record in self.attempts()}

    def images(self) -> dict[str, bytes]:
        folder = self.output / "images"
        return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.png")}

    def check_all_is_done_once(self, undisturbed: dict[str, bytes]) -> None:
        """Each input has one decision, the bytes of an undisturbed run, and at most one set was
        begun twice."""
        rows = read_manifest(open_store(str(self.output))).to_pylist()
        assert Counter(row["identity"] for row in rows) == Counter(self.people)
        assert {row["status"] for row in rows} == {"protected"}
        assert self.num_attempts <= len(self.people) + 1
        assert self.images() == undisturbed
        assert verify_output(str(self.output), str(self.album)).num_findings == 0
        assert unfinished_runs(open_store(str(self.output))) == []


def start_run(
    folder: Path, cluster: RayCluster | None, *options: str, people: str = PEOPLE
) -> ClusterRun:
    """Starts ``dladiff protect`` and returns at once.

    Args:
        cluster: None: workers are processes of this machine.
        options: Of the command, beside those of all drills.
        people: With a photo each.
    """
    folder.mkdir(parents=True, exist_ok=True)
    album, output = face_album(folder / "in", dict.fromkeys(people, 1)), folder / "out"
    command = [str(Path(sys.executable).with_name("dladiff")), "protect", str(album), str(output)]
    command += ["--preset", "zero-shot", "--workers", "1"]
    command += ["--canary", "0"]  # published as they are done
    command += [f"--set={key}={value}" for key, value in _SETTINGS.items()]
    command += ["--ray-address", cluster.address] if cluster else []
    command += options
    program = Program(command, folder / "log", cluster.environment if cluster else None)
    program.start()
    return ClusterRun(album, output, program, people)

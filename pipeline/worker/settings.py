"""What the driver tells a worker, and what it learns of each set: small plain values."""

import dataclasses
import json
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Literal, Self

from pipeline.config import RunConfig
from pipeline.records import RunColumns
from pipeline.storage.store import Store, open_store


@dataclass(frozen=True)
class WorkerSettings:
    """All that a worker is told; small, since Ray sends it to every actor. No credentials."""

    output_uri: str
    run_id: str
    config: RunConfig
    method_digest: str
    models_digest: str
    code_digest: str
    device: str = "cpu"
    """``cpu`` or ``cuda``; never chosen silently by the worker itself."""
    load_at_start: bool = True
    """Load the models before the first set; else once a photo has to be computed."""
    input_roots: tuple[str, ...] = ()
    """``Catalog.roots``: places that photos may be read from."""
    log_json: bool = False
    verbose: bool = False
    """How the processes of the pool log, see ``RunOptions``."""
    node: str | None = None
    """Ray's id of the node, set where the worker runs."""

    def output_store(self) -> Store:
        """OUTPUT as the run writes it."""
        return open_store(self.output_uri, single_writer=self.config.operation.single_writer)

    def row_columns(self) -> RunColumns:
        """Manifest columns that all rows of the run share."""
        return RunColumns(
            seed=self.config.method.seed,
            method_digest=self.method_digest,
            models_digest=self.models_digest,
            version=version("dladiff"),
        )


@dataclass(frozen=True)
class SetOutcome:
    """What the driver learns of one set: counts and keys, no pixels, no names."""

    set_key: str
    generation: int
    outcome: Literal["committed", "already", "deferred"]
    statuses: dict[str, int]
    cause: str | None = None
    seconds: float = 0.0
    gpu_seconds: float = 0.0
    stage_seconds: dict[str, float] = field(default_factory=dict)
    """Wall seconds by stage of the method."""
    first_step_cpu_s: float | None = None
    """CPU seconds of the worker's process until its first step."""

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        return cls(**json.loads(text))

"""What a person decides at the prompt for one run, and what a run hands back.

Plain data between ``cli`` and ``run``. Options that are settings of the work itself (workers,
GPUs per worker, failure share, single writer, allowed prefixes) are no fields here: the command
line writes them into ``RunConfig.operation``, so that there is one place to read them from.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.config import OnMethodChange
from pipeline.reach import Reach

EXIT_DONE = 0
"""Every planned photo is decided, or left for later by a limit that a person set; failures
within ``operation.max_failed``."""
EXIT_ERROR = 1
"""A bug, a wrong configuration, OUTPUT is locked by another run, or a new method did not pass the
gate before its first publish."""
EXIT_FAILURES = 2
"""All decided, but more failed than ``operation.max_failed`` allows, or fewer reached their target
than ``operation.min_target_met`` asks for; ``verify``: findings, or the latter."""
EXIT_UNFINISHED = 3
"""Photos are left undecided because the environment was at fault, or a folder of INPUT may not be
read; running again goes on."""


@dataclass(frozen=True)
class RunOptions:
    """Decisions for one run; none of them changes a byte of a protected photo."""

    run_id: str | None = None
    """Label of the run; None: a RayJob's name where there is one, else UTC time and 4 hex."""
    ray_address: str | None = None
    """Address of a running Ray cluster, or ``auto``; None: RAY_ADDRESS, else this machine."""
    on_method_change: OnMethodChange = "refuse"
    """What to do where OUTPUT was made with another method digest: refuse, ``keep`` what is
    there, or ``reprotect`` it."""
    reprotect: tuple[str, ...] = ()
    """Do photos again whose newest manifest row meets all of these, see ``selection.Condition``."""
    retry_failed: bool = False
    """Open a new generation for photo sets that failed."""
    retry_quarantined: bool = False
    """Open a new generation for photo sets that were quarantined after crashes."""
    wait: bool = False
    """Wait for another run's lock instead of exiting with 1."""
    batch: bool = False
    """Exit codes for a job controller, where each non-zero exit builds a new cluster: 0 whenever
    all is decided, 3 only where another cluster can help."""
    max_sets: int | None = None
    """Photo sets that this run takes at most; the rest stays for the next one. None: all."""
    max_worker_hours: float | None = None
    """Stop once workers have spent so many hours on photo sets, all workers together: GPU-hours
    where each worker has a GPU. None: no limit."""
    metrics_port: int | None = None
    """Serve the driver's Prometheus metrics on this port; None: not served; 0: any free one."""
    log_json: bool = False
    """Log JSON lines (the workers too)."""
    verbose: bool = False
    """Log at debug level, which may name photos; show tracebacks."""


@dataclass(frozen=True)
class PlanCounts:
    """What a run is about to do, in numbers; carries no names."""

    num_photos: int
    """Photos to decide."""
    num_sets: int
    num_unchanged: int = 0
    """Photos whose newest manifest row is of the same version and method: nothing to do."""
    num_below_target: int = 0
    """Of these, protected photos that missed their target."""
    num_moved: int = 0
    """Of the gone ones, those that seem to lie elsewhere in INPUT."""
    num_handed_on: int = 0
    """Photos that take over the key of one that lay at the same place of another INPUT."""
    num_returned: int = 0
    """Of the unchanged ones: gone before, and back as they were."""
    num_gone: int = 0
    """Manifest rows whose original is no longer in INPUT."""
    num_forgotten: int = 0
    """Photos of people whom OUTPUT was told to forget: left alone."""
    num_identities: int = 0
    """Identities with at least one photo to do."""
    num_bytes: int = 0
    """Encoded bytes to read, references included."""
    oldest_unprotected_age_s: float | None = None
    """Age of the oldest photo to do, now or later, by its store's time stamp; None where
    unknown."""
    num_later: int = 0
    """Photos to do that ``RunOptions.max_sets`` leaves for a later run."""
    passed_over: Mapping[str, int] = field(default_factory=dict)
    """Files of INPUT that are not taken for photos, by reason (``reasons.PASSED_OVER``)."""
    passed_over_types: Mapping[str, int] = field(default_factory=dict)
    """Those that are no photos, by extension."""

    @property
    def num_denied(self) -> int:
        """Folders of INPUT that may not be read."""
        return self.passed_over.get("denied", 0)


@dataclass(frozen=True)
class RunOutcome:
    """How a run ended."""

    run_id: str
    exit_code: int
    counts: Mapping[str, int] = field(default_factory=dict)
    """Photos by status (``records.RowStatus``), decided or deferred in this run."""
    seconds: float = 0.0
    """Wall seconds from lock to fold."""
    photos_per_s: float = 0.0
    """Decided photos per wall second of the protect stage."""
    causes: Mapping[str, int] = field(default_factory=dict)
    """Deferred photo sets by cause (``errors.EnvironmentTrouble.cause``)."""
    num_sets: int = 0
    """Photo sets decided in this run."""
    gpu_seconds: float = 0.0
    num_later: int = 0
    """Photos that a limit of ``RunOptions`` left for a later run."""
    num_held: int = 0
    """Photos of this run whose images wait until enough of a new method can be judged."""
    reach: Reach = field(default_factory=Reach)
    """Which photos of this run reached their target, and which faces it left out."""
    shortfalls: tuple[str, ...] = ()
    """What a person asked for and this run did not reach, one sentence each."""
    num_gone: int = 0
    """As in ``PlanCounts``, like those that follow."""
    num_handed_on: int = 0
    passed_over: Mapping[str, int] = field(default_factory=dict)
    passed_over_types: Mapping[str, int] = field(default_factory=dict)
    first_step_cpu_s: float | None = None
    """CPU seconds of this process until it started workers, and of the first one that decided a
    set until its first step."""
    message: str | None = None
    """One line for a person where there is something to say, e.g. why the run stopped early."""

    @property
    def num_decided(self) -> int:
        """Photos with a final status in this run."""
        return sum(number for status, number in self.counts.items() if status != "deferred")

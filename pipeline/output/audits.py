"""What a run's audit found: numbers over a few people, in ``runs/<id>/audit.json``. Names nobody.

Knows the record and where it lies; how an audit is done stands in ``pipeline.evaluation.audit``.
"""

import dataclasses
import json
from dataclasses import dataclass

from pipeline.errors import PipelineError
from pipeline.output.runs import list_runs, read_run, run_key
from pipeline.storage.store import Store


@dataclass(frozen=True)
class AuditJudge:
    """What one judge, or the worst or mean of several, sees; all are means over people."""

    judge: str
    family: str
    in_loss: bool
    kin_of_loss: bool
    headline: bool
    leak_clean: float
    leak_protected: float
    floor: float
    effect: float | None
    """Share of the leak that protection takes away; None: the attack learnt nothing."""
    effect_low: float | None
    """Ends of the 95 % interval over people; None for one person."""
    effect_high: float | None
    effect_smoothed: float | None
    """On blurred, noised, compressed images: what vanishes there is no protection."""


@dataclass(frozen=True)
class Audit:
    """A quick attack on a few photo sets of a run."""

    run_id: str
    num_sets_asked: int
    num_people: int
    """One set of each; fewer than asked where the run has no more, or an attack failed."""
    num_photos: int
    """Attacked photos, all people together."""
    attack: str
    checkpoint: str
    num_images: int
    """Generated per stop of an attack, and dropped."""
    seconds: float
    cpu_seconds: float
    judges: tuple[AuditJudge, ...]
    """The headline first; empty where there was nobody to attack."""

    @property
    def headline(self) -> AuditJudge | None:
        return next((judge for judge in self.judges if judge.headline), None)


def write_audit(store: Store, audit: Audit) -> None:
    """Puts an audit into its run's record, replacing an earlier one."""
    text = json.dumps(dataclasses.asdict(audit), sort_keys=True, indent=1)
    store.write(run_key(audit.run_id, "audit.json"), text.encode())


def read_audit(store: Store, run_id: str) -> Audit | None:
    """The audit of a run, None if it has none."""
    key = run_key(run_id, "audit.json")
    try:
        fields = json.loads(store.read(key))
        judges = tuple(AuditJudge(**judge) for judge in fields.pop("judges"))
        return Audit(**fields, judges=judges)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError):
        raise PipelineError(f"{store.uri_of(key)} is no audit: was it edited?") from None


def newest_audit(store: Store) -> Audit | None:
    """The audit of the run that was started last among those that have one."""
    audits = [audit for run_id in list_runs(store) if (audit := read_audit(store, run_id))]
    return max(
        audits,
        key=lambda audit: (read_run(store, audit.run_id) or {}).get("started_at", ""),
        default=None,
    )

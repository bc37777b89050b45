"""What a plan will cost, before it is run: photos, bytes, worker-hours."""

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import RunConfig
from pipeline.manifest_row import PROTECTED_STATUSES
from pipeline.planning.plan import Plan

MEASURED_COLUMNS = ("status", "method_digest", "seconds", "run_id", "committed_at")
"""Columns of the manifest that ``measured_seconds_per_photo`` reads."""

_DEFAULT_SECONDS = {"zero-shot": 9.0}
"""Seconds per photo of one worker, by preset: CPU seconds of one thread, 4 photos of 250 px, one
face each, both encoders in the loss. Presets with layer 1 depend on the checkpoint and the device
by a factor of a hundred, so there is no default for them: ``--calibrate`` measures it."""


@dataclass(frozen=True)
class Estimate:
    """Expected work of a plan."""

    num_photos: int
    num_bytes: int
    """Encoded bytes to read, references included."""
    seconds_per_photo: float | None
    """Seconds of one worker; None: nothing is known yet."""
    basis: str
    """Where ``seconds_per_photo`` comes from, for a person."""

    @property
    def worker_hours(self) -> float | None:
        if self.seconds_per_photo is None:
            return None
        return self.num_photos * self.seconds_per_photo / 3600

    def wall_hours(self, workers: int) -> float | None:
        """The hours that so many workers take, as long as there are enough photo sets for all."""
        return None if self.worker_hours is None else self.worker_hours / workers


def estimate(
    plan: Plan,
    config: RunConfig,
    measured_s: float | None = None,
    basis: str = "measured by this OUTPUT's last run with these settings",
) -> Estimate:
    """Estimates the work of a plan.

    Args:
        plan: The work.
        config: Its preset chooses the default.
        measured_s: Seconds per photo of one worker, e.g. ``measured_seconds_per_photo``.
        basis: Where ``measured_s`` comes from.
    """
    seconds = measured_s
    if seconds is None:
        seconds = _DEFAULT_SECONDS.get(config.method.preset)
        basis = f"default of the preset {config.method.preset}, measured on one CPU core"
    if seconds is None:
        basis = "not known before a first run: --calibrate 16 measures it on this machine"
    totals = plan.totals
    return Estimate(totals.num_photos, totals.num_bytes, seconds, basis)


def measured_seconds_per_photo(manifest: pa.Table, method_digest: str) -> float | None:
    """Median seconds per photo of the last run that protected photos with a method; None: none did.

    Args:
        manifest: With ``MEASURED_COLUMNS``.
        method_digest: Of the method that is about to run.
    """
    of_method = pc.and_(
        pc.equal(manifest["method_digest"], method_digest),
        pc.is_in(manifest["status"], pa.array(sorted(PROTECTED_STATUSES))),
    )
    rows = manifest.filter(pc.and_(of_method, pc.is_valid(manifest["seconds"])))
    if not len(rows):
        return None
    last_run = rows.sort_by("committed_at")["run_id"][-1]
    seconds = rows.filter(pc.equal(rows["run_id"], last_run))["seconds"]
    return float(pc.quantile(seconds, 0.5)[0].as_py())

"""The first photo sets of a method new to OUTPUT, and the judgement that lets them be published.

Knows the figures of commits and the thresholds. Publishes nothing itself.
"""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Self

from pipeline.config import CanarySettings
from pipeline.manifest_row import PROTECTED_STATUSES, ManifestRow
from pipeline.output import gate
from pipeline.records import CommitRecord
from pipeline.storage.store import Store


class CanaryFailed(Exception):  # noqa: N818 - a reason to stop, not an error of ours
    """What a method made is not to be published; the text says what a person can do."""


@dataclass(frozen=True)
class CanaryFigures:
    """What the protected photos of some photo sets measured; None: no photo has this figure."""

    num_sets: int
    num_photos: int
    num_with_likeness: int
    likeness: float | None
    """Median of the highest cosine that a recogniser of the loop has left on a photo."""
    psnr_db: float | None
    """Median."""
    changed_pixels: float | None
    """Median share of changed pixels."""

    @classmethod
    def of(cls, records: Sequence[CommitRecord]) -> Self:
        """The figures of these commits."""
        rows = [staged.row for record in records for staged in record.rows]
        rows = [row for row in rows if row.status in PROTECTED_STATUSES]
        left = [max(cosines) for row in rows if (cosines := _cosines_left(row))]
        return cls(
            num_sets=len(records),
            num_photos=len(rows),
            num_with_likeness=len(left),
            likeness=_median(left),
            psnr_db=_median(row.psnr_db for row in rows),
            changed_pixels=_median(row.changed_pixels for row in rows),
        )

    def shortfalls(self, settings: CanarySettings) -> list[str]:
        """What misses its threshold, each with the key to change; empty: the method passes."""
        judged = [
            ("the median PSNR in dB", "min_psnr_db", self.psnr_db),
            ("the median share of changed pixels", "min_changed_pixels", self.changed_pixels),
        ]
        found = [
            f"{what} is {value:.3g}, below operation.canary.{key} = {getattr(settings, key):g}"
            for what, key, value in judged
            if value is not None and value < getattr(settings, key)
        ]
        many = self.num_with_likeness >= settings.min_likeness_photos
        if many and self.likeness is not None and self.likeness > settings.max_likeness:
            found.append(
                f"the median likeness left on the photo is {self.likeness:.3g}, above "
                f"operation.canary.max_likeness = {settings.max_likeness:g}"
            )
        return found


class Canary:
    """What waits for the gate of a run's method, from earlier runs and from this one."""

    def __init__(
        self,
        store: Store,
        method_digest: str,
        settings: CanarySettings,
        waiting: Sequence[CommitRecord] = (),
    ) -> None:
        """Looks whether the gate is open.

        Args:
            settings: Thresholds, and how many photo sets are judged.
            waiting: What earlier runs left waiting for this very gate.
        """
        self._store, self._digest, self._settings = store, method_digest, settings
        self.is_open = gate.is_open(store, method_digest)
        self.waiting = [*waiting]
        """Commits whose images wait; the fold that publishes them empties this."""

    @property
    def is_due(self) -> bool:
        """Whether enough waits to be judged."""
        return not self.is_open and len(self.waiting) >= max(1, self._settings.num_sets)

    def let_wait(self, record: CommitRecord) -> bool:
        """Takes a commit whose images must wait; says whether they must."""
        if self.is_open or not gate.has_image(record):
            return False
        self.waiting.append(record)
        return True

    def judge(self) -> None:
        """Opens the gate, or writes down why not.

        Raises:
            CanaryFailed: The figures fall short of the settings.
        """
        figures = CanaryFigures.of(self.waiting)
        shortfalls = "; ".join(figures.shortfalls(self._settings))
        self._write(not shortfalls, shortfalls or "the first photo sets passed", figures)
        if shortfalls:
            raise CanaryFailed(
                f"nothing made with these settings is published: over {figures.num_photos} photos "
                f"in {figures.num_sets} sets {shortfalls}. What is computed waits in OUTPUT: look "
                "at it below runs/, then publish it by a lower threshold or by --canary 0; other "
                "settings do these photos again"
            )
        self.is_open = True

    def _write(self, open_: bool, why: str, figures: CanaryFigures) -> None:
        gate.write_verdict(self._store, self._digest, open_=open_, why=why, figures=asdict(figures))


def accept(store: Store, method_digest: str) -> None:
    """Opens a gate unseen, since a person asked for no canary."""
    if not gate.is_open(store, method_digest):
        gate.write_verdict(store, method_digest, open_=True, why="--canary 0", figures={})


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _cosines_left(row: ManifestRow) -> list[float]:
    """Of the recognisers in the loss, on the photo."""
    cosines = row.identity_cosines or ()
    return [one.after for one in cosines if not one.held_out and one.after is not None]

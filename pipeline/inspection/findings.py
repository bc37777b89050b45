"""What ``verify`` found, and the same for a person. Looks at nothing itself."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from pipeline.reach import Reach
from pipeline.reporting.reach_words import NONE_REACHED, left_out_text, target_text

MAX_LISTED = 1000
"""Findings that are kept in full; beyond, they are only counted."""

FindingKind = Literal[
    "missing_output",
    "wrong_hash",
    "not_readable",
    "wrong_size",
    "over_budget",
    "more_visible",
    "unknown_file",
    "not_accounted",
    "outdated",
]
"""``unknown_file``: in ``images/``, and no decision led to it; ``not_accounted``: a photo of INPUT
without a decision that stands; ``outdated``: one whose content is not what was decided on."""


@dataclass(frozen=True)
class Finding:
    """One thing that is not as the manifest, or INPUT, says."""

    kind: FindingKind
    where: str
    """URI of the photo or file."""
    detail: str = ""


@dataclass
class VerifyReport:
    """What was looked at and what was found."""

    statuses: dict[str, int] = field(default_factory=dict)
    """Newest rows by status."""
    reach: Reach = field(default_factory=Reach)
    """Which photos reached their target likeness, and which faces were left out."""
    num_files: int = 0
    """Protected files whose bytes were hashed and decoded."""
    num_compared: int = 0
    """Photos that were compared with the original pixel by pixel."""
    num_input_photos: int | None = None
    """Photos of INPUT; None: INPUT was not given."""
    kinds: dict[str, int] = field(default_factory=dict)
    """Findings by kind."""
    findings: list[Finding] = field(default_factory=list)
    """The first ``MAX_LISTED``."""
    notes: list[str] = field(default_factory=list)
    """What could not be checked, and other things worth knowing."""

    @property
    def num_findings(self) -> int:
        return sum(self.kinds.values())

    def add(self, findings: Iterable[Finding]) -> None:
        for finding in findings:
            self.kinds[finding.kind] = self.kinds.get(finding.kind, 0) + 1
            if len(self.findings) < MAX_LISTED:
                self.findings.append(finding)


def report_lines(report: VerifyReport, max_findings: int = 20) -> list[str]:
    """The report for a person: what was checked, notes, the first findings, the verdict."""
    statuses = ", ".join(f"{name} {number:,}" for name, number in sorted(report.statuses.items()))
    reach = report.reach
    none = f", {NONE_REACHED}" if reach.all_missed else ""
    lines = [
        f"photos      {sum(report.statuses.values()):,} ({statuses}){none}",
        f"files       {report.num_files:,} hashed and decoded",
        f"budgets     {report.num_compared:,} compared with their original, pixel by pixel",
    ]
    if report.num_input_photos is not None:
        lines.append(f"INPUT       {report.num_input_photos:,} photos looked up in the manifest")
    if text := target_text(reach):
        lines.append(f"target      {text}")
    if text := left_out_text(reach):
        lines.append(f"left out    {text}")
    lines += [f"note        {note}" for note in report.notes]
    lines += [
        f"{finding.kind:<12}{finding.where} {finding.detail}".rstrip()
        for finding in report.findings[:max_findings]
    ]
    if report.num_findings > max_findings:
        lines.append(f"... and {report.num_findings - max_findings:,} more, see --json")
    kinds = ", ".join(f"{kind} {number:,}" for kind, number in sorted(report.kinds.items()))
    lacks = [f"{reach.num_missed:,} below target"] if reach.num_missed else []
    if reach.num_left_out_photos:
        lacks.append(f"{reach.num_left_out_photos:,} with faces left out")
    fine = f"nothing wrong with the files; {', '.join(lacks)}" if lacks else "nothing wrong"
    lines.append(f"found       {kinds or fine}")
    return lines

"""``dladiff verify``: the newest manifest rows against the files, and INPUT against the rows.

Reads everything, writes nothing. One photo at a time per thread, so OUTPUT may be of any size.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256

from pipeline.catalog.folder import check_paths, read_catalog
from pipeline.catalog.output_keys import ending_of
from pipeline.config import OperationSettings
from pipeline.errors import EnvironmentTrouble, PhotoError
from pipeline.images.coding import Coding, coding_for, decode_coded
from pipeline.images.files import Image, PhotoLimits, decode_photo
from pipeline.inspection.pixel_checks import budget_findings, coded_findings
from pipeline.manifest_row import PROTECTED_STATUSES, ManifestRow
from pipeline.output.manifest import SourceState, newest_rows, read_manifest, require_states
from pipeline.output.runs import unfinished_runs
from pipeline.output.tombstones import Tombstones
from pipeline.storage.store import Store, open_store, read_uri

MAX_LISTED = 1000
"""Findings that are kept in full; beyond, they are only counted."""

_THREADS = 4
_NO_LIMITS = PhotoLimits(max_bytes=2**33, max_pixels=2**31, min_side_px=1)
"""A row exists, so some run's limits allowed the photo; today's settings must not matter."""

_COLUMNS = (
    "source_uri",
    "source_sha256",
    "output_sha256",
    "status",
    "width",
    "height",
    "faces",
    "epsilon_finetune_levels",
    "epsilon_zeroshot_levels",
    "max_change_levels",
    "max_change_levels_outside_faces",
    "coded_change_levels",
)


@dataclass(frozen=True)
class Finding:
    """One thing that is not as the manifest, or INPUT, says."""

    kind: str
    """``missing_output``, ``wrong_hash``, ``not_readable``, ``wrong_size``, ``over_budget``,
    ``unknown_file``, ``not_accounted``, ``outdated``."""
    where: str
    """URI of the photo or file."""
    detail: str = ""


@dataclass
class VerifyReport:
    """What was looked at and what was found."""

    statuses: dict[str, int] = field(default_factory=dict)
    """Newest rows by status."""
    num_files: int = 0
    """Protected files whose bytes were hashed and decoded."""
    num_compared: int = 0
    """Of these, compared with the original pixel by pixel."""
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


def verify_output(
    output_uri: str,
    input_uri: str | None = None,
    allow_prefixes: tuple[str, ...] = (),
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> VerifyReport:
    """Checks OUTPUT against its manifest, and that every photo of INPUT is accounted for.

    Args:
        output_uri: OUTPUT.
        input_uri: INPUT; None: only what OUTPUT knows is checked.
        allow_prefixes: Where a catalog file may point to, as for a run.
        on_progress: Told how many of how many rows are checked.

    Raises:
        ConfigurationError: If there is no OUTPUT, no manifest, or INPUT cannot be listed.
    """
    if input_uri is not None:
        input_uri, output_uri = check_paths(input_uri, output_uri)
    store = open_store(output_uri)
    states = require_states(store)
    report = VerifyReport(statuses=dict(Counter(state.status for state in states.values())))
    _check_rows(store, states, report, on_progress)
    _check_files(store, states, report)
    if input_uri is not None:
        _check_input(input_uri, store, allow_prefixes, states, report)
    if unfinished := len(unfinished_runs(store)):
        report.notes.append(
            f"runs not finished: {unfinished}; what they decided enters the manifest with the "
            "next `dladiff protect`"
        )
    return report


@dataclass
class _RowCheck:
    """Outcome of one row."""

    findings: list[Finding]
    has_file: bool = False
    is_compared: bool = False
    original_trouble: str | None = None


def _check_rows(
    store: Store,
    states: Mapping[str, SourceState],
    report: VerifyReport,
    on_progress: Callable[[int, int], None],
) -> None:
    def check(row: ManifestRow) -> _RowCheck:
        return _check_row(store, row, states[row.source_uri].output_key)

    originals: Counter[str] = Counter()
    for done, outcome in enumerate(_in_threads(check, newest_rows(store, _COLUMNS)), start=1):
        report.add(outcome.findings)
        report.num_files += outcome.has_file
        report.num_compared += outcome.is_compared
        if outcome.original_trouble:
            originals[outcome.original_trouble] += 1
        on_progress(done, len(states))
    for trouble, number in sorted(originals.items()):
        report.notes.append(f"budgets not checked for {number} photos: {trouble}")


def _in_threads(
    check: Callable[[ManifestRow], _RowCheck], rows: Iterable[ManifestRow]
) -> Iterator[_RowCheck]:
    """``check`` of every row, in order, a few rows ahead: never all of them in memory."""
    with ThreadPoolExecutor(_THREADS) as pool:
        ahead: deque[Future[_RowCheck]] = deque()
        for row in rows:
            ahead.append(pool.submit(check, row))
            if len(ahead) > 2 * _THREADS:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _check_row(store: Store, row: ManifestRow, output_key: str | None) -> _RowCheck:
    if output_key is None:
        if row.status in PROTECTED_STATUSES:
            return _RowCheck([Finding("missing_output", row.source_uri, "the row names none")])
        return _RowCheck([])
    where = store.uri_of(output_key)
    try:
        content = store.read(output_key)
    except FileNotFoundError:
        return _RowCheck([Finding("missing_output", where)])
    if sha256(content).hexdigest() != row.output_sha256:
        return _RowCheck([Finding("wrong_hash", where, "the file was changed or replaced")], True)
    try:
        protected = decode_coded(content)
    except ValueError as error:
        return _RowCheck([Finding("not_readable", where, str(error))], True)
    height, width = protected.shape[:2]
    # A row whose original is gone describes no pixels any more.
    if row.width is not None and (width, height) != (row.width, row.height):
        detail = f"{width} x {height}, the manifest says {row.width} x {row.height}"
        return _RowCheck([Finding("wrong_size", where, detail)], True)
    original = _read_original(row)
    if isinstance(original, str):
        return _RowCheck([], True, original_trouble=original)
    pixels, coding = original.image, original.coding(output_key)
    if coding.is_lossy:
        if pixels.shape == protected.shape:
            pixels = coding.read_back(pixels)
        troubles = coded_findings(pixels, protected, row)
    else:
        troubles = budget_findings(pixels, protected, row)
    return _RowCheck([Finding("over_budget", where, text) for text in troubles], True, True)


@dataclass(frozen=True)
class _Original:
    """What was protected."""

    content: bytes
    image: Image
    ending: str

    def coding(self, output_key: str) -> Coding:
        """How its protected photo was written."""
        return coding_for(self.content, self.image, self.ending, ending_of(output_key))[0]


def _read_original(row: ManifestRow) -> _Original | str:
    """The pixels that were protected, or why they cannot be had any more."""
    try:
        content = read_uri(row.source_uri)
    except FileNotFoundError:
        return "the original is gone"
    except EnvironmentTrouble as error:
        return f"the original cannot be read ({error.cause})"
    if sha256(content).hexdigest() != row.source_sha256:
        return "the original has changed since"
    try:
        image = decode_photo(content, _NO_LIMITS).image
        return _Original(content, image, ending_of(row.source_uri))
    except PhotoError as error:
        return f"the original cannot be decoded ({error})"


def _check_files(store: Store, states: Mapping[str, SourceState], report: VerifyReport) -> None:
    """Finds files in images/ that no row knows."""
    known = {state.output_key for state in states.values()}
    strangers = [info.key for info in store.list("images/") if info.key not in known]
    if not strangers:
        return
    earlier = set(read_manifest(store, ["output_sha256"])["output_sha256"].to_pylist())
    num_earlier = 0
    for key in strangers:
        if store.sha256_of(key, read=True) in earlier:
            num_earlier += 1
        else:
            report.add([Finding("unknown_file", store.uri_of(key), "no manifest row")])
    if num_earlier:
        report.notes.append(
            f"files that only an earlier decision on their photo knows: {num_earlier}"
        )


def _check_input(
    input_uri: str,
    store: Store,
    allow_prefixes: tuple[str, ...],
    states: Mapping[str, SourceState],
    report: VerifyReport,
) -> None:
    """Every photo of INPUT must have a decision on its present version."""
    operation = OperationSettings(allow_prefixes=allow_prefixes)
    catalog, tombstones = read_catalog(input_uri, operation, store.uri), Tombstones(store)
    report.num_input_photos, num_forgotten = len(catalog.photos), 0
    for photo in catalog.photos:
        state = states.get(photo.uri)
        if tombstones.hold(photo.identity):
            num_forgotten += 1
        elif state is None or state.status == "source_gone":
            report.add([Finding("not_accounted", photo.uri, "no decision in the manifest")])
        elif state.version != photo.version:
            detail = f"changed since it was {state.status}"
            report.add([Finding("outdated", photo.uri, detail)])
    if num_forgotten:
        report.notes.append(f"photos of people whom OUTPUT was told to forget: {num_forgotten}")
    if ignored := catalog.report.num_ignored:
        report.notes.append(f"files of INPUT that are no photos: {ignored}")


def report_lines(report: VerifyReport, max_findings: int = 20) -> list[str]:
    """The report for a person: what was checked, notes, the first findings, the verdict."""
    statuses = ", ".join(f"{name} {number:,}" for name, number in sorted(report.statuses.items()))
    lines = [
        f"photos      {sum(report.statuses.values()):,} ({statuses})",
        f"files       {report.num_files:,} hashed and decoded",
        f"budgets     {report.num_compared:,} compared with their original, pixel by pixel",
    ]
    if report.num_input_photos is not None:
        lines.append(f"INPUT       {report.num_input_photos:,} photos looked up in the manifest")
    lines += [f"note        {note}" for note in report.notes]
    lines += [
        f"{finding.kind:<12}{finding.where} {finding.detail}".rstrip()
        for finding in report.findings[:max_findings]
    ]
    if report.num_findings > max_findings:
        lines.append(f"... and {report.num_findings - max_findings:,} more, see --json")
    kinds = ", ".join(f"{kind} {number:,}" for kind, number in sorted(report.kinds.items()))
    lines.append(f"found       {kinds}" if kinds else "found       nothing wrong")
    return lines

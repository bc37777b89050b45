"""``dladiff verify``: the newest manifest rows against the files, and INPUT against the rows.

Reads everything, writes nothing. One photo at a time per thread, so OUTPUT may be of any size.
Whether INPUT is accounted for stands in ``verify_input``.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256

from pipeline.catalog.folder import check_paths
from pipeline.catalog.output_keys import ending_of
from pipeline.config import FORMAT_OF_ENDING, OperationSettings
from pipeline.errors import EnvironmentTrouble, PhotoError
from pipeline.images.coding import PreparedPhoto, decode_coded, prepare
from pipeline.images.files import NO_LIMITS, decode_photo
from pipeline.inspection.findings import Finding, VerifyReport
from pipeline.inspection.pixel_checks import budget_findings, coded_findings, visibility_findings
from pipeline.inspection.unfinished import UnfinishedPhoto, unfinished_photos
from pipeline.inspection.verify_input import KnownOriginals, check_input
from pipeline.manifest_row import PROTECTED_STATUSES, ManifestRow
from pipeline.output.manifest import SourceState, newest_rows, read_manifest, require_states
from pipeline.output.runs import unfinished_runs
from pipeline.reach import REACH_COLUMNS, Reach
from pipeline.storage.store import Store, open_store, read_uri

_THREADS = 4
_CHANGED = "the original has changed since"

_COLUMNS = (
    "source_uri",
    "source_sha256",
    "output_sha256",
    "width",
    "height",
    "faces",
    "epsilon_finetune_levels",
    "epsilon_zeroshot_levels",
    "max_change_levels",
    "max_change_levels_outside_faces",
    "coded_change_levels",
    "face_visibility_jod",
    *REACH_COLUMNS,
    "source_notes",
    "output_format",
)


def verify_output(
    output_uri: str,
    input_uri: str | None = None,
    listing: OperationSettings | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> VerifyReport:
    """Checks OUTPUT against its manifest, and that every photo of INPUT is accounted for.

    Args:
        output_uri: OUTPUT.
        input_uri: INPUT; None: only what OUTPUT knows is checked.
        listing: How INPUT is listed, as for a run: allowed prefixes, patterns. None: as by default.
        on_progress: Told how many of how many rows are checked.

    Raises:
        ConfigurationError: If there is no OUTPUT, no manifest, or INPUT cannot be listed.
    """
    if input_uri is not None:
        input_uri, output_uri = check_paths(input_uri, output_uri)
    store = open_store(output_uri)
    states, unfinished = require_states(store), unfinished_photos(store)
    report = VerifyReport(statuses=dict(Counter(state.status for state in states.values())))
    known = _check_rows(store, states, unfinished, report, on_progress)
    _check_files(store, states, unfinished, report)
    if input_uri is not None:
        listing = listing or OperationSettings()
        check_input(input_uri, store, listing, states, unfinished, known, report)
    if num_unfinished := len(unfinished_runs(store)):
        report.notes.append(
            f"runs not finished: {num_unfinished}; what they decided enters the manifest with the "
            "next `dladiff protect`"
        )
    return report


@dataclass
class _RowCheck:
    """Outcome of one row."""

    row: ManifestRow
    findings: list[Finding]
    has_file: bool = False
    is_compared: bool = False
    original_trouble: str | None = None


def _check_rows(
    store: Store,
    states: Mapping[str, SourceState],
    unfinished: Mapping[str, UnfinishedPhoto],
    report: VerifyReport,
    on_progress: Callable[[int, int], None],
) -> KnownOriginals:
    def check(row: ManifestRow) -> _RowCheck:
        state = states.get(row.source_uri)
        if state is None:  # a run at work has decided on it since
            return _RowCheck(row, [])
        return _check_row(store, row, state, unfinished.get(row.source_uri))

    known, originals = KnownOriginals(), Counter[str]()
    for done, outcome in enumerate(_in_threads(check, _described_rows(store, states)), start=1):
        report.add(outcome.findings)
        report.num_files += outcome.has_file
        report.num_compared += outcome.is_compared
        uri, trouble = outcome.row.source_uri, outcome.original_trouble
        if trouble:
            originals[trouble] += 1
        if outcome.is_compared or trouble == _CHANGED:
            known.is_same[uri] = outcome.is_compared
        if uri in states and states[uri].status == "source_gone":
            known.before_gone[uri] = outcome.row.status
        else:
            report.reach += Reach.of([outcome.row])
        on_progress(done, len(states))
    for trouble, number in sorted(originals.items()):
        report.notes.append(f"budgets not checked for {number} photos: {trouble}")
    return known


def _described_rows(store: Store, states: Mapping[str, SourceState]) -> Iterator[ManifestRow]:
    """A row for every source: its newest one that describes the protected file.

    That of a photo which is gone names the file and no more: what was measured stands in the
    decision before it.
    """
    gone = {uri for uri, state in states.items() if state.status == "source_gone"}
    for row in newest_rows(store, _COLUMNS, leaving_out=("deferred", "source_gone")):
        gone.discard(row.source_uri)
        yield row
    if gone:  # the decision before has vanished
        for row in newest_rows(store, _COLUMNS):
            if row.source_uri in gone:
                yield row


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


def _check_row(
    store: Store, row: ManifestRow, state: SourceState, unfinished: UnfinishedPhoto | None
) -> _RowCheck:
    output_key = state.output_key
    if output_key is None:
        if state.status in PROTECTED_STATUSES:
            detail = "the row names none"
            return _RowCheck(row, [Finding("missing_output", row.source_uri, detail)])
        return _RowCheck(row, [])
    where = store.uri_of(output_key)
    try:
        content = store.read(output_key)
    except FileNotFoundError:
        return _RowCheck(row, [Finding("missing_output", where)])
    digest = sha256(content).hexdigest()
    if digest != state.output_sha256:
        if unfinished is not None and (output_key, digest) == (
            unfinished.output_key,
            unfinished.output_sha256,
        ):
            return _RowCheck(row, [], True)  # a newer decision's, whose row is still to come
        detail = "the file was changed or replaced"
        return _RowCheck(row, [Finding("wrong_hash", where, detail)], True)
    try:
        protected = decode_coded(content)
    except ValueError as error:
        return _RowCheck(row, [Finding("not_readable", where, str(error))], True)
    height, width = protected.shape[:2]
    if row.width is None or digest != row.output_sha256:
        return _RowCheck(row, [], True, original_trouble="the decision on it has vanished")
    if (width, height) != (row.width, row.height):
        detail = f"{width} x {height}, the manifest says {row.width} x {row.height}"
        return _RowCheck(row, [Finding("wrong_size", where, detail)], True)
    original = _read_original(row, output_key)
    if isinstance(original, str):
        return _RowCheck(row, [], True, original_trouble=original)
    pixels, coding = original.decoded.image, original.coding
    if coding.changes_pixels:
        troubles = coded_findings(pixels, protected, row, coding)
    else:
        troubles = budget_findings(pixels, protected, row)
    findings = [Finding("over_budget", where, text) for text in troubles]
    looks = visibility_findings(pixels, protected, row)
    findings += [Finding("more_visible", where, text) for text in looks]
    return _RowCheck(row, findings, True, True)


def _read_original(row: ManifestRow, output_key: str) -> PreparedPhoto | str:
    """The pixels that were protected, or why they cannot be had any more."""
    try:
        content = read_uri(row.source_uri)
    except FileNotFoundError:
        return "the original is gone"
    except EnvironmentTrouble as error:
        return f"the original cannot be read ({error.cause})"
    if sha256(content).hexdigest() != row.source_sha256:
        return _CHANGED
    try:
        decoded = decode_photo(content, NO_LIMITS, row.source_notes or ())
        ending = ending_of(output_key)
        by_name = (row.output_format or "png").upper() == FORMAT_OF_ENDING.get(ending)
        return prepare(content, decoded, ending_of(row.source_uri), ending, not by_name)
    except PhotoError as error:
        return f"the original cannot be decoded ({error})"


def _check_files(
    store: Store,
    states: Mapping[str, SourceState],
    unfinished: Mapping[str, UnfinishedPhoto],
    report: VerifyReport,
) -> None:
    """Finds files in images/ to which no decision led: other keys, or other bytes under one."""
    known = {state.output_key for state in states.values()}
    strangers = [info.key for info in store.list("images/") if info.key not in known]
    if not strangers:
        return
    coming = {(photo.output_key, photo.output_sha256) for photo in unfinished.values()}
    table = read_manifest(store, ["output_uri", "output_sha256"])
    served = zip(*(column.to_pylist() for column in table.itercolumns()), strict=True)
    earlier = {(store.key_of(uri), digest) for uri, digest in served if _is_below(uri, store)}
    num_earlier = 0
    for key in strangers:
        file = key, store.sha256_of(key, read=True)
        if file in coming:
            continue  # published, and its row is still to come
        if file in earlier:
            num_earlier += 1
        else:
            report.add([Finding("unknown_file", store.uri_of(key), "no manifest row")])
    if num_earlier:
        report.notes.append(
            f"files that only an earlier decision on their photo knows: {num_earlier}"
        )


def _is_below(uri: str | None, store: Store) -> bool:
    return uri is not None and uri.startswith(store.uri_of("images/"))

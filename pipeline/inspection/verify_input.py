"""Is every photo of INPUT accounted for? Its version against the decision that stands.

Knows what the check of the rows has learned of the originals. Reads a photo only where its version
is another one than was decided on: a copy or a restored backup has new times and old content.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256

from pipeline.catalog.folder import read_catalog
from pipeline.config import OperationSettings
from pipeline.errors import EnvironmentTrouble
from pipeline.inspection.findings import Finding, VerifyReport
from pipeline.inspection.unfinished import UnfinishedPhoto
from pipeline.manifest_row import PROTECTED_STATUSES
from pipeline.output.manifest import SourceState
from pipeline.output.tombstones import Tombstones
from pipeline.reasons import passed_over_text
from pipeline.records import MISSING_VERSION, SourcePhoto
from pipeline.storage.store import Store, read_uri

_BACK = "photos that were gone and are back as they were; the next run notes it"
_GONE = "photos that a catalog file names and that are not there"
_UNFINISHED = "photos that an unfinished run decided on, their files in place"
_FORGOTTEN = "photos of people whom OUTPUT was told to forget"


@dataclass
class KnownOriginals:
    """What the check of the rows learned of the originals, by ``source_uri``."""

    is_same: dict[str, bool] = field(default_factory=dict)
    """Whether the content is the one decided on, of those that could be read."""
    before_gone: dict[str, str] = field(default_factory=dict)
    """The status that photos had before a run found them gone."""


def check_input(
    input_uri: str,
    store: Store,
    listing: OperationSettings,
    states: Mapping[str, SourceState],
    unfinished: Mapping[str, UnfinishedPhoto],
    known: KnownOriginals,
    report: VerifyReport,
) -> None:
    """Adds a finding for each photo of INPUT without a decision on its present content.

    Args:
        listing: How INPUT is listed, as for a run.
        states: Newest decisions, by ``source_uri``.
        unfinished: Of runs that are not finished.
        known: From the check of the rows.
    """
    catalog = read_catalog(input_uri, listing, store.uri, known=states.keys)
    tombstones = Tombstones(store)
    report.num_input_photos = len(catalog.photos)
    notes: Counter[str] = Counter()
    for photo in catalog.photos:
        if tombstones.hold(photo.identity):
            notes[_FORGOTTEN] += 1
            continue
        verdict = _judge(photo, states.get(photo.uri), unfinished.get(photo.uri), known, store)
        if isinstance(verdict, Finding):
            report.add([verdict])
        elif verdict:
            notes[verdict] += 1
    report.notes += [f"{text}: {number}" for text, number in sorted(notes.items())]
    if catalog.report.num_ignored:
        others = passed_over_text(catalog.report.ignored, catalog.report.ignored_extensions)
        report.notes.append(f"passed over in INPUT: {others}")
    unseen = "it may not be read: its photos were not looked for"
    report.add([Finding("not_accounted", folder, unseen) for folder in catalog.report.denied])


def _judge(
    photo: SourcePhoto,
    state: SourceState | None,
    unfinished: UnfinishedPhoto | None,
    known: KnownOriginals,
    store: Store,
) -> Finding | str | None:
    """What is wrong with one photo, or else what is worth a note."""
    if unfinished is not None and unfinished.source_version == photo.version:
        return _judge_unfinished(photo, unfinished, store)
    if state is None:
        return Finding("not_accounted", photo.uri, "no decision in the manifest")
    if photo.version == MISSING_VERSION:
        return _GONE
    if not _is_as_decided(photo, state, known):
        before = known.before_gone.get(photo.uri)
        detail = f"changed since it was {before or state.status}"
        return Finding("outdated", photo.uri, detail)
    if state.status != "source_gone":
        return None
    if known.before_gone.get(photo.uri) in PROTECTED_STATUSES and state.output_key is None:
        detail = "it was gone and is back: its protected file was removed meanwhile"
        return Finding("not_accounted", photo.uri, detail)
    return _BACK


def _judge_unfinished(
    photo: SourcePhoto, decision: UnfinishedPhoto, store: Store
) -> Finding | str | None:
    if decision.is_held:
        detail = "computed and held back until its settings are judged, see `dladiff status`"
    elif decision.output_sha256 is None or decision.is_served(store):
        return _UNFINISHED
    else:
        detail = f"computed by run {decision.run_id}, which is not finished, and not published yet"
    return Finding("not_accounted", photo.uri, detail)


def _is_as_decided(photo: SourcePhoto, state: SourceState, known: KnownOriginals) -> bool:
    if photo.uri in known.is_same:
        return known.is_same[photo.uri]
    if photo.version == state.version:
        return True
    if state.sha256 is None:
        return False
    try:
        return sha256(read_uri(photo.uri)).hexdigest() == state.sha256
    except (FileNotFoundError, EnvironmentTrouble):
        return False

"""``dladiff report``: a page or picture of a few photos, for the eyes of whoever may see INPUT.

Reads OUTPUT and the originals; writes one file, where the user says, never among the outputs.
"""

import base64
from collections.abc import Iterable, Sequence
from pathlib import Path

from pipeline.config import OperationSettings
from pipeline.errors import ConfigurationError, EnvironmentTrouble, PhotoError
from pipeline.images.coding import decode_coded
from pipeline.images.files import PhotoLimits, decode_photo
from pipeline.inspection.before_after import BeforeAfter, before_after_png
from pipeline.inspection.blind_test import FacePair, blind_page
from pipeline.inspection.pages import render_page
from pipeline.inspection.summary import SUMMARY_COLUMNS, summary_table
from pipeline.manifest_row import PROTECTED_STATUSES, ManifestRow
from pipeline.output.audits import newest_audit
from pipeline.output.manifest import newest_rows, require_states
from pipeline.reporting.audit_words import audit_table
from pipeline.storage.store import Store, lies_below, normalise_uri, open_store, read_uri

_PROMISE = (
    "Protection raises the cost of misusing exactly these pictures. It is no guarantee: cleaning "
    "methods, unprotected copies elsewhere and future models can defeat it. The numbers are what "
    "was measured on the saved files."
)


def write_report(
    output_uri: str, target: Path, num_photos: int = 4, *, blind: bool = False
) -> Path:
    """Writes a before/after picture (``.png``) or a page with numbers and pictures (``.html``).

    Args:
        output_uri: OUTPUT with a manifest.
        target: File to write; replaced if it exists.
        num_photos: How many photos to show, of as many persons as there are.
        blind: A page that asks which face of each photo is protected, instead.

    Returns:
        ``target``.

    Raises:
        ConfigurationError: If the ending is another, the target lies in OUTPUT, or no protected
            photo can be compared with its original.
    """
    if blind and target.suffix.lower() != ".html":
        raise ConfigurationError(f"{target}: a blind test is a page, expected a name in .html")
    if target.suffix.lower() not in (".png", ".html"):
        raise ConfigurationError(f"{target}: expected a file name ending in .html or .png")
    store = open_store(output_uri)
    if lies_below(normalise_uri(str(target)), store.uri):
        raise ConfigurationError(
            f"{target} lies in OUTPUT, whose files may be served: choose another"
        )
    states = require_states(store)
    keys = {uri: state.output_key for uri, state in states.items()}
    rows = list(newest_rows(store, ("identity", "faces", *SUMMARY_COLUMNS)))
    shown = [row for row in _spread(rows) if row.faces or not blind]
    readable = _readable_pairs(store, shown, keys, num_photos)
    if not readable:
        raise ConfigurationError(
            "no protected photo can be shown beside its original: are the originals where they "
            "were when they were protected?"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    if blind:
        faces = [
            FacePair.of(pair.original, pair.protected, face)
            for row, pair in readable
            for face in (row.faces or ())[:1]
        ]
        target.write_text(blind_page(faces), encoding="utf-8")
        return target
    picture = before_after_png([pair for _, pair in readable])
    if target.suffix.lower() == ".png":
        target.write_bytes(picture)
    else:
        audit = newest_audit(store)
        table = summary_table(rows) + (audit_table(audit) if audit else [])
        target.write_text(_page(table, picture), encoding="utf-8")
    return target


def _spread(rows: Iterable[ManifestRow]) -> list[ManifestRow]:
    """Protected rows, one of each person in turn, in a fixed order."""
    by_identity: dict[str, list[ManifestRow]] = {}
    for row in sorted(rows, key=lambda row: row.source_uri):
        if row.status in PROTECTED_STATUSES:
            by_identity.setdefault(row.identity, []).append(row)
    turns = [(turn, row) for of_one in by_identity.values() for turn, row in enumerate(of_one)]
    return [row for _, row in sorted(turns, key=lambda pair: pair[0])]


def _readable_pairs(
    store: Store, rows: Iterable[ManifestRow], keys: dict[str, str | None], num_photos: int
) -> list[tuple[ManifestRow, BeforeAfter]]:
    limits = PhotoLimits.of(OperationSettings())
    pairs: list[tuple[ManifestRow, BeforeAfter]] = []
    for row in rows:
        key = keys[row.source_uri]
        if len(pairs) == num_photos or key is None:
            break
        try:
            original = decode_photo(read_uri(row.source_uri), limits).image
            protected = decode_coded(store.read(key))
        except (FileNotFoundError, ValueError, PhotoError, EnvironmentTrouble):
            continue  # `verify` is the command that complains
        if original.shape == protected.shape:
            caption = f"at most {row.max_change_levels} levels changed"
            pairs.append((row, BeforeAfter(original, protected, caption)))
    return pairs


def _page(table: Sequence[tuple[str, str]], picture: bytes) -> str:
    """One self-contained page: no scripts, nothing loaded from elsewhere."""
    encoded = base64.b64encode(picture).decode()
    return render_page("report.html.j2", promise=_PROMISE, table=table, picture=encoded)

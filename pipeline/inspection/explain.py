"""``dladiff explain``: why a photo is or is not protected, in plain sentences. Reads only."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from pipeline.errors import ConfigurationError, EnvironmentTrouble
from pipeline.manifest_row import PROTECTED_STATUSES, ManifestRow
from pipeline.output.ledger import Ledger
from pipeline.output.manifest import (
    SourceState,
    decisions,
    find_sources,
    newest_of,
    require_output,
    rows_of_source,
)
from pipeline.output.runs import is_finished, list_runs, planned_sets
from pipeline.output.tombstones import Tombstones
from pipeline.reasons import Reason
from pipeline.records import PhotoSet
from pipeline.storage.store import Store, normalise_uri, open_store
from pipeline.storage.uris import folder_and_name

_MAX_CANDIDATES = 10
SOURCE_NOTES = {
    "first_frame": "It is an animation: only its first frame is protected and served.",
    "alpha_flattened": "It was transparent: it was laid on white.",
    "converted_to_srgb": "Its colours were converted from its own profile to sRGB.",
    "colour_profile_ignored": "Its colour profile is damaged: it was taken for sRGB.",
    "colour_numbers_unknown": "It names colours by numbers that are not known: they are kept.",
    "tone_mapped": "It was HDR: it was mapped to what an ordinary screen shows.",
    "end_marker_missing": "Its end marker is missing; all of its pixels are there.",
    "trailing_bytes_dropped": "Bytes behind the picture (a video, another picture) were dropped.",
    "sixteen_bits_rounded": "Its 16 bits per value were rounded to 8.",
    "written_as_png": "Its protected file is a PNG: its own format is not written.",
    "written_as_jpeg": "Its protected file is a JPEG, not of its own format.",
    "written_as_webp": "Its protected file is a WebP, not of its own format.",
    "written_as_heif": "Its protected file is a HEIF, not of its own format.",
    "written_as_avif": "Its protected file is an AVIF, not of its own format.",
    "converted_from_png": "Its file was a PNG at first; its figures are those of the present file.",
    "exif_ignored": "Its EXIF is damaged: it was taken as upright.",
}
"""``ManifestRow.source_notes`` in sentences."""


def explain_photo(store: Store, photo: str) -> list[str]:
    """Everything OUTPUT knows of one photo, newest first.

    Args:
        store: OUTPUT.
        photo: Path or URI of the original, URI or key of its protected file, or the end of one
            of these where it fits a single photo.

    Raises:
        ConfigurationError: If there is no OUTPUT, or several photos fit.
    """
    require_output(store)
    # Bytes of a command line that are no text are in no photo's name: such files are left out.
    photo = photo.encode(errors="surrogateescape").decode(errors="replace")
    named = _Named.by(store, photo)
    outputs = [store.uri_of(key) for key in named.output_keys]
    decided = find_sources(store, (named.uri,), named.ending, outputs)
    states = newest_of(decisions(store, sources=decided))
    planned = _planned_photos(store, named, decided)
    uri = _find(named, states, planned)
    if uri is None:
        return _unknown(store, photo)
    lines = [uri]
    if uri in states:
        lines += _explain_state(store, uri, states[uri])
    lines += _explain_history(rows_of_source(store, uri), has_state=uri in states)
    for run_id, photo_set in planned.get(uri, ()):
        lines += _explain_open_run(store, run_id, photo_set, uri)
    return lines


@dataclass(frozen=True)
class _Named:
    """What a person's word for a photo may stand for."""

    photo: str
    """The photo as it was asked for."""
    uri: str
    """URI of the original."""
    output_keys: tuple[str, ...]
    """Keys of its protected file."""
    ending: str
    """The ending of the original's URI."""

    @classmethod
    def by(cls, store: Store, photo: str) -> "_Named":
        try:
            uri = normalise_uri(photo)
        except ConfigurationError:
            uri = photo
        key = uri.removeprefix(store.uri.rstrip("/") + "/")
        return cls(photo, uri, (key, photo), "/" + photo.lstrip("./"))


def _planned_photos(
    store: Store, named: _Named, decided: Collection[str]
) -> dict[str, list[tuple[str, PhotoSet]]]:
    """Photo sets of unfinished runs by the URIs of those photos that may be meant."""
    planned: dict[str, list[tuple[str, PhotoSet]]] = {}
    for run_id in list_runs(store):
        if is_finished(store, run_id):
            continue
        for photo_set in planned_sets(store, run_id):
            for uri in (photo.uri for photo in photo_set.photos):
                if uri == named.uri or uri in decided or uri.endswith(named.ending):
                    planned.setdefault(uri, []).append((run_id, photo_set))
    return planned


def _find(
    named: _Named,
    states: Mapping[str, SourceState],
    planned: Mapping[str, list[tuple[str, PhotoSet]]],
) -> str | None:
    """The source URI that a person means."""
    by_output = {state.output_key: uri for uri, state in states.items() if state.output_key}
    known = states.keys() | planned.keys()
    if named.uri in known:
        return named.uri
    for key in named.output_keys:
        if key in by_output:
            return by_output[key]
    fitting = sorted(uri for uri in known if uri.endswith(named.ending))
    if len(fitting) > 1:
        shown = "\n  ".join(fitting[:_MAX_CANDIDATES])
        raise ConfigurationError(f"{len(fitting)} photos fit {named.photo!r}, name one:\n  {shown}")
    return fitting[0] if fitting else None


def _unknown(store: Store, photo: str) -> list[str]:
    tombstones = Tombstones(store)
    if any(tombstones.hold(segment) for segment in photo.split("/")):
        return [
            f"OUTPUT {store.uri} was told to forget the person of {photo}: it holds nothing of "
            "them, and no run takes their photos. `dladiff forget --undo` lets runs take them."
        ]
    lines = [f"OUTPUT {store.uri} knows nothing of {photo}: no run has planned it."]
    lines.append(
        "Either it came after the last run (`dladiff protect` takes it up), or no run takes it "
        "for a photo of INPUT: hidden files, other file types and links that leave INPUT are "
        "passed over."
    )
    return lines


def _explain_state(store: Store, uri: str, state: SourceState) -> list[str]:
    """The newest decision, whether it still fits the original, and what to do."""
    lines = [f"{_verdict(state)} (run {state.run_id}, {state.committed_at[:19]} UTC)."]
    if state.output_key is not None:
        there = "is there" if store.exists(state.output_key) else "is MISSING: see `dladiff verify`"
        lines.append(f"Its protected file {store.uri_of(state.output_key)} {there}.")
    changed = _has_changed(uri, state)
    if state.status == "source_gone":
        return lines if changed is None else [*lines, "It is there again: the next run decides."]
    if changed:
        lines.append("The original has changed since: the next run decides anew.")
    elif changed is None:
        lines.append("The original cannot be found where it was.")
    return lines


def _verdict(state: SourceState) -> str:
    reason = Reason.parse(state.reason) if state.reason else None
    why = "no reason was recorded" if reason is None else reason.sentence()
    below = ", less than asked for: its target likeness was missed"
    below = below if state.target_met is False else ""
    if state.status == "protected":
        return f"It is protected{below}"
    if state.status == "partly_protected":
        remedy = f"; {reason.remedy}" if reason is not None and reason.remedy else ""
        return f"It is protected in part{below}: {why}{remedy}"
    if state.status in PROTECTED_STATUSES:
        layer = "layer 1" if state.status == "layer1_only" else "layer 2"
        return f"It is protected by {layer} only: {why}"
    if state.status == "skipped":
        remedy = f"; {reason.remedy}" if reason is not None and reason.remedy else ""
        return f"It is not protected: {why}{remedy}"
    if state.status == "failed":
        return (
            f"It is not protected: the work on its photo set failed ({why}); "
            "`--retry-failed` tries again"
        )
    if state.status == "quarantined":
        return (
            f"It is not protected: work on its photo set ended its process ({why}), so no run "
            "tries it any more; `--retry-quarantined` does"
        )
    file = "was kept" if state.output_key else "was removed, or there was none"
    return f"Its original was gone from INPUT at the last run; the protected file {file}"


def _has_changed(uri: str, state: SourceState) -> bool | None:
    """Whether the original is another version now; None: it cannot be found."""
    folder, name = folder_and_name(uri)
    try:
        info = open_store(folder).info(name)
    except (EnvironmentTrouble, ConfigurationError):
        return None
    return None if info is None else info.version != state.version


def _explain_history(rows: list[ManifestRow], has_state: bool) -> list[str]:
    """What the newest row measured, and the rows before it."""
    decided = [row for row in rows if row.status != "deferred"]
    lines = _explain_measures(decided[-1]) if has_state and decided else []
    later = rows[rows.index(decided[-1]) + 1 :] if decided else rows
    for row in later:
        lines.append(
            f"Run {row.run_id} put it off: the environment was at fault "
            f"({row.reason or 'unknown cause'}); run `dladiff protect` again."
        )
    for row in reversed(decided[:-1]):
        why = f" ({row.reason})" if row.reason else ""
        lines.append(
            f"Earlier: {row.status}{why} in run {row.run_id}, {(row.committed_at or '')[:19]} UTC."
        )
    return lines


def _explain_measures(row: ManifestRow) -> list[str]:
    if row.status not in PROTECTED_STATUSES:
        return []
    lines = [
        f"Faces: {row.num_faces}. Largest change: {row.max_change_levels} of 255 levels, "
        f"{row.max_change_levels_outside_faces} outside faces; "
        f"PSNR {_number(row.psnr_db, 1)} dB."
    ]
    if row.face_visibility_jod is not None:
        lines.append(
            "Looks that its face keeps, of the face that shows most: "
            f"{_number(row.face_visibility_jod, 2)} of 10 JOD at twice its size, "
            f"{_number(row.face_visibility_jod_1x, 2)} at its own."
        )
    lines += [SOURCE_NOTES.get(note, note) for note in row.source_notes or ()]
    for cosine in row.identity_cosines or ():
        kind = "held out" if cosine.held_out else "attacked"
        lines.append(
            f"Likeness to the original for {cosine.encoder} ({kind}): "
            f"{_number(cosine.after, 2)}, after JPEG and resizing "
            f"{_number(cosine.after_handling, 2)} (1 = same picture)."
        )
    for cosine in row.model_likeness or ():
        lines.append(
            f"Likeness for {cosine.encoder} of what a model's autoencoder shows: "
            f"{_number(cosine.before, 2)} unprotected, {_number(cosine.after, 2)} protected, "
            f"{_number(cosine.after_handling, 2)} after JPEG and resizing."
        )
    if row.target_met is False:
        lines.append("The target likeness was not reached: it is protected less than asked for.")
    return lines


def _number(value: float | None, digits: int) -> str:
    return "not measured" if value is None else f"{value:.{digits}f}"


def _explain_open_run(store: Store, run_id: str, photo_set: PhotoSet, uri: str) -> list[str]:
    """What an unfinished run did with the photo's set so far."""
    ledger = Ledger(store, run_id)
    commit = ledger.read_commit(photo_set.key, photo_set.generation)
    if commit is not None:
        statuses: list[str] = [
            each.row.status for each in commit.rows if each.row.source_uri == uri
        ]
        statuses += ["unchanged" for photo in commit.unchanged if photo.source_uri == uri]
        return [
            f"Run {run_id} is not finished; it decided {statuses[0] if statuses else 'nothing'} "
            "for this photo, which counts once the next `dladiff protect` has finished that run."
        ]
    states = [
        ledger.state_of(attempt) for attempt in ledger.attempts(photo_set.key, photo_set.generation)
    ]
    if not states:
        return [f"Run {run_id} is not finished; it planned this photo and has not begun with it."]
    tried = ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states)))
    return [
        f"Run {run_id} is not finished; its work on this photo's set began {len(states)} times "
        f"({tried}) without a decision yet."
    ]

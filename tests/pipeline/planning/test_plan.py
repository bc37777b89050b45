"""The plan: what OUTPUT remembers decides what is to do."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.catalog.folder import read_catalog
from pipeline.catalog.output_keys import encode_segment
from pipeline.catalog.photos import Catalog, Photos
from pipeline.config import OperationSettings, RunConfig, load_config
from pipeline.errors import ConfigurationError
from pipeline.output.manifest import SourceState
from pipeline.planning.decisions import DecisionRules
from pipeline.planning.known_states import KnownStates
from pipeline.planning.plan import Plan, make_plan
from pipeline.records import SourcePhoto
from pipeline.storage import spool
from tests.sample_photos import write_album
from tests.source_states import METHOD, state_of

OUTPUT = "file:///out"


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    paths = [f"ann/{n}.jpg" for n in range(6)] + [f"bob/{n}.jpg" for n in range(20)]
    write_album(tmp_path / "in", dict.fromkeys(paths, b"12345"))
    return read_catalog(str(tmp_path / "in"), OperationSettings())


@pytest.fixture
def states(catalog: Catalog) -> dict[str, SourceState]:
    """OUTPUT holds every photo of the catalog."""
    return {photo.uri: state_of(photo) for photo in catalog.photos}


def plan(
    catalog: Catalog,
    states: dict[str, SourceState],
    digest: str = METHOD,
    config: RunConfig | None = None,
    method_of_run: Any = None,
    decided: dict[str, int] | None = None,
    **rules: Any,
) -> Plan:
    photos = Photos(catalog.photos)
    known = KnownStates(photos, encode_segment)
    known.add(states.items())
    return make_plan(
        replace(catalog, photos=photos),
        known,
        config or load_config(),
        DecisionRules(digest, **rules),
        output_uri=OUTPUT,
        method_of_run=method_of_run,
        decided_generations=decided,
    )


def photo_named(catalog: Catalog, name: str) -> SourcePhoto:
    return next(photo for photo in catalog.photos if photo.uri.endswith(name))


def planned(result: Plan) -> list[SourcePhoto]:
    return [photo for photo_set in result.photo_sets for photo in photo_set.photos]


def test_all_is_new_at_first(catalog: Catalog) -> None:
    result = plan(catalog, {})
    assert result.counts.found == result.counts.new == result.counts.to_do == 26
    assert sorted(len(s.photos) for s in result.photo_sets) == [6, 10, 10]
    assert {s.identity for s in result.photo_sets[:2]} == {"ann", "bob"}
    assert result.totals.num_bytes == 26 * 5
    summary = result.summary()
    assert (summary.num_photos, summary.num_sets, summary.num_identities) == (26, 3, 2)
    assert summary.oldest_unprotected_age_s is not None


def test_a_limit_takes_the_first_sets_and_leaves_the_others_for_later(catalog: Catalog) -> None:
    whole = plan(catalog, {})
    limited = whole.limited_to(1)
    assert limited.photo_sets == whole.photo_sets[:1]
    assert limited.later_sets == whole.photo_sets[1:]
    counts = limited.summary()
    assert counts.num_photos + counts.num_later == 26
    assert (counts.num_sets, counts.num_identities) == (1, 1)
    assert limited.totals.num_bytes == 5 * counts.num_photos
    assert whole.limited_to(None) is whole


def test_nothing_new_is_nothing_to_do(catalog: Catalog, states: dict[str, SourceState]) -> None:
    result = plan(catalog, states)
    assert result.photo_sets == []
    assert result.counts.unchanged == 26
    assert result.gone_rows == []
    assert result.summary().num_unchanged == 26


def test_an_added_photo_is_one_set(catalog: Catalog, states: dict[str, SourceState]) -> None:
    added = photo_named(catalog, "ann/3.jpg")
    del states[added.uri]
    result = plan(catalog, states)
    assert planned(result) == [added]
    assert result.counts.new == 1


def test_a_changed_photo_is_done_again_under_its_key(
    catalog: Catalog, states: dict[str, SourceState]
) -> None:
    photo = photo_named(catalog, "ann/3.jpg")
    states[photo.uri] = state_of(photo, version="older", output_key="images/ann/kept.png")
    result = plan(catalog, states)
    (done,) = planned(result)
    assert done.output_key == "images/ann/kept.png"
    assert done.previous_sha256 == "sha of the original"
    assert result.counts.changed == 1


def test_a_photo_that_left_becomes_a_row_and_keeps_its_output(
    catalog: Catalog, states: dict[str, SourceState]
) -> None:
    photo = photo_named(catalog, "ann/3.jpg")
    whole, catalog = catalog, replace(catalog, photos=[p for p in catalog.photos if p != photo])
    result = plan(catalog, states)
    (row,) = result.gone_rows
    assert row.status == "source_gone"
    assert row.source_uri == photo.uri
    assert row.output_uri == f"{OUTPUT}/{photo.output_key}"
    assert result.photo_sets == []
    assert result.counts.gone == result.summary().num_gone == 1
    states[photo.uri] = state_of(photo, status="source_gone")
    assert plan(catalog, states).gone_rows == []
    catalog = whole
    back = plan(catalog, states)
    assert (back.returned, len(back.photo_sets)) == ([photo], 0)
    assert back.summary().num_returned == 1
    states[photo.uri] = state_of(photo, status="source_gone", version="older")
    (again,) = planned(plan(catalog, states))
    assert (again.uri, again.previous_sha256) == (photo.uri, "sha of the original")
    states[photo.uri] = state_of(photo, status="source_gone", output_key=None)
    (again,) = planned(plan(catalog, states))
    assert (again.uri, again.previous_sha256) == (photo.uri, None)


def test_an_empty_input_is_not_taken_for_a_mass_deletion(
    tmp_path: Path, catalog: Catalog, states: dict[str, SourceState]
) -> None:
    for photo in catalog.photos:
        Path(photo.uri.removeprefix("file://")).unlink()
    (tmp_path / "in/ann/.DS_Store").touch()
    (tmp_path / "in/ann/Thumbs.db").write_bytes(b"x")
    empty = read_catalog(str(tmp_path / "in"), OperationSettings())
    with pytest.raises(ConfigurationError, match=r"of 26 photos .* 26 are gone: .* --max-gone 1"):
        plan(empty, states)
    result = plan(empty, states, config=load_config(operation={"max_gone": 1}))
    assert len(result.gone_rows) == 26
    gone = {uri: replace(state, status="source_gone") for uri, state in states.items()}
    assert plan(empty, gone).counts.gone == 0


@pytest.mark.parametrize(
    ("settings", "num_deleted", "is_refused"),
    [
        ({}, 13, False),
        ({}, 14, True),
        ({"max_gone": 0.1}, 3, True),
        ({"max_gone": 0.1, "max_gone_photos": 3}, 3, False),
        ({"max_gone": 1}, 25, False),
    ],
)
def test_photos_that_are_gone_in_great_number_stop_the_run(
    catalog: Catalog,
    states: dict[str, SourceState],
    settings: dict[str, Any],
    num_deleted: int,
    is_refused: bool,
) -> None:
    catalog = replace(catalog, photos=[*catalog.photos][num_deleted:])
    config = load_config(operation=settings)
    if is_refused:
        with pytest.raises(ConfigurationError, match=rf", {num_deleted} are gone: is all of it"):
            plan(catalog, states, config=config)
    else:
        assert len(plan(catalog, states, config=config).gone_rows) == num_deleted


def test_of_few_photos_few_may_go(tmp_path: Path) -> None:
    write_album(tmp_path / "in", {f"ann/{n}.jpg": b"x" for n in range(3)})
    catalog = read_catalog(str(tmp_path / "in"), OperationSettings())
    states = {photo.uri: state_of(photo) for photo in catalog.photos}
    catalog = replace(catalog, photos=[*catalog.photos][2:])
    assert len(plan(catalog, states).gone_rows) == 2


def test_an_input_without_a_photo_is_refused_with_what_was_found(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(ConfigurationError, match=r"in holds no photo; it is empty\. Expected"):
        plan(read_catalog(str(tmp_path / "in"), OperationSettings()), {})
    write_album(tmp_path / "in", {"ann/1.mov": b"x", "ann/2": b"y", "ann/.DS_Store": b"z"})
    found = r"1 hidden or of a system, 2 no photo by their first bytes \(none 1, mov 1\)"
    with pytest.raises(ConfigurationError, match=found):
        plan(read_catalog(str(tmp_path / "in"), OperationSettings()), {})
    (tmp_path / "c.csv").write_text("identity,uri\n")
    with pytest.raises(ConfigurationError, match="names no photo: it has no rows"):
        plan(read_catalog(str(tmp_path / "c.csv"), OperationSettings()), {})


def test_a_missing_photo_of_a_catalog_file_is_decided_once(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("identity,uri\nann,1.jpg\n")
    catalog = read_catalog(str(tmp_path / "c.csv"), OperationSettings())
    (photo,) = planned(plan(catalog, {}))
    states = {photo.uri: state_of(photo, status="skipped", reason="missing: it is gone")}
    again = plan(catalog, states)
    assert (len(again.photo_sets), again.gone_rows, again.counts.unchanged) == (0, [], 1)
    # It was there before: its output gets a source_gone row, once.
    before = plan(catalog, {photo.uri: state_of(photo, version="1")})
    assert (len(before.photo_sets), len(before.gone_rows)) == (0, 1)
    after = plan(catalog, {photo.uri: state_of(photo, version="1", status="source_gone")})
    assert (len(after.photo_sets), after.gone_rows) == (0, [])


def test_another_method_is_refused_with_the_difference(
    catalog: Catalog, states: dict[str, SourceState]
) -> None:
    config = load_config("zero-shot", overrides=["loop.num_steps=60"])
    before = load_config("zero-shot", overrides=["loop.num_steps=150"])
    with pytest.raises(ConfigurationError) as caught:
        plan(
            catalog,
            states,
            "method-2",
            config,
            method_of_run={"run-1": before.method.model_dump(mode="json")}.get,
        )
    text = str(caught.value)
    assert "26 photos" in text
    assert "loop.num_steps: 150 -> 60" in text
    assert "--on-method-change keep" in text


@pytest.mark.parametrize(
    ("before", "words"), [(None, "not known"), (load_config().method, "weight files")]
)
def test_a_refusal_without_another_setting_says_so(
    catalog: Catalog, states: dict[str, SourceState], before: Any, words: str
) -> None:
    settings = before and before.model_dump(mode="json")
    with pytest.raises(ConfigurationError, match=words):
        plan(catalog, states, "method-2", method_of_run=lambda _: settings)


def test_another_method_can_be_kept_or_reprotected(
    catalog: Catalog, states: dict[str, SourceState]
) -> None:
    new, changed = photo_named(catalog, "ann/1.jpg"), photo_named(catalog, "ann/2.jpg")
    del states[new.uri]
    states[changed.uri] = state_of(changed, version="older")
    kept = plan(catalog, states, "method-2", on_method_change="keep")
    assert {photo.uri for photo in planned(kept)} == {new.uri, changed.uri}
    assert [photo.previous_sha256 for photo in planned(kept)] == [None, None]
    again = plan(catalog, states, "method-2", on_method_change="reprotect")
    assert again.counts.method_changed == 25
    assert again.counts.new == 1


def test_photos_of_another_input_are_left_alone(catalog: Catalog) -> None:
    other = SourcePhoto("eve", "file:///elsewhere/eve/1.jpg", "images/eve/1.jpg.png", 1, "1")
    states = {other.uri: state_of(other, method_digest="other")}
    result = plan(catalog, states)
    assert result.gone_rows == []
    assert result.counts.new == 26


def test_references_are_usable_originals_and_only_for_methods_that_read_them(
    catalog: Catalog, states: dict[str, SourceState]
) -> None:
    todo, broken = photo_named(catalog, "ann/0.jpg"), photo_named(catalog, "ann/1.jpg")
    del states[todo.uri]
    states[broken.uri] = state_of(broken, status="skipped", reason="corrupt: pixels")
    (photo_set,) = plan(catalog, states, config=load_config("paper")).photo_sets
    assert len(photo_set.references) == 3
    assert broken.uri not in {photo.uri for photo in photo_set.references}
    assert all(photo.identity == "ann" for photo in photo_set.references)
    for preset in ("balanced", "zero-shot", "mist"):
        (without,) = plan(catalog, states, config=load_config(preset)).photo_sets
        assert without.references == ()


def test_a_set_that_is_already_decided_gets_the_next_generation(catalog: Catalog) -> None:
    first = plan(catalog, {}).photo_sets[0]
    assert first.generation == 0
    again = plan(catalog, {}, decided={first.key: 1}).photo_sets
    assert [photo_set.generation for photo_set in again] == [2, 0, 0]


def test_keys_follow_what_output_holds(catalog: Catalog) -> None:
    photo = photo_named(catalog, "ann/0.jpg")
    twin = SourcePhoto("ANN", "file:///was/ANN/0.jpg", "images/ANN/0.jpg.png", 1, "1")
    result = plan(catalog, {twin.uri: state_of(twin)})
    (key,) = [each.output_key for each in planned(result) if each.uri == photo.uri]
    assert key.startswith("images/ann/0~")


@pytest.fixture
def few_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with millions of photos: next to nothing waits in memory."""
    monkeypatch.setattr(spool, "_IN_MEMORY", 3)


@pytest.fixture
def crowd(tmp_path: Path) -> Catalog:
    """Thirty people in as many parts, give or take."""
    paths = [f"person-{who}/{n}.jpg" for who in range(30) for n in range(3)]
    write_album(tmp_path / "crowd", dict.fromkeys(paths, b"12345"))
    return read_catalog(str(tmp_path / "crowd"), OperationSettings())


def test_a_plan_that_lies_on_disk_is_the_same(
    crowd: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {photo.uri: state_of(photo) for photo in crowd.photos if "/0.jpg" in photo.uri}
    gone = SourcePhoto("eve", f"{crowd.roots[0]}/eve/1.jpg", "images/eve/1.jpg.png", 1, "1")
    known[gone.uri] = state_of(gone)
    in_memory = plan(crowd, known)
    monkeypatch.setattr(spool, "_IN_MEMORY", 3)
    on_disk = plan(crowd, known)
    assert on_disk.photo_sets == in_memory.photo_sets
    assert on_disk.counts == in_memory.counts
    assert (on_disk.counts.new, on_disk.counts.gone, on_disk.counts.unchanged) == (60, 1, 30)
    assert on_disk.gone_rows == in_memory.gone_rows


@pytest.mark.usefixtures("few_in_memory")
def test_content_of_another_person_is_recognised_across_parts(crowd: Catalog) -> None:
    moved = photo_named(crowd, "person-3/1.jpg")
    before = SourcePhoto("old", f"{crowd.roots[0]}/old/1.jpg", "images/old/1.jpg.png", 5, "1")
    result = plan(crowd, {before.uri: state_of(before, num_bytes=5, version=moved.version)})
    assert result.counts.moved == result.counts.gone == 1
    assert {len(photo.twins) for photo in planned(result)} == {1}
    assert {photo.twins[0].uri for photo in planned(result)} == {before.uri}


@pytest.mark.usefixtures("few_in_memory")
def test_a_photo_that_was_another_persons_is_known_all_the_same(crowd: Catalog) -> None:
    """INPUT was the folder above or below, or a catalog file gave another name."""
    states = {
        photo.uri: state_of(photo, identity="somebody", output_key=f"images/somebody/{n}.jpg")
        for n, photo in enumerate(crowd.photos)
    }
    result = plan(crowd, states)
    assert (result.counts.unchanged, result.counts.gone, len(result.photo_sets)) == (90, 0, 0)


@pytest.mark.usefixtures("few_in_memory")
def test_a_key_in_somebody_elses_folder_is_not_given_twice(crowd: Catalog) -> None:
    photo = photo_named(crowd, "person-7/1.jpg")
    given = SourcePhoto("guest", "file:///was/1.jpg", photo.output_key, 1, "1")
    result = plan(crowd, {given.uri: state_of(given)})
    (key,) = [each.output_key for each in planned(result) if each.uri == photo.uri]
    assert key.startswith("images/person-7/1~")
    assert len({each.output_key.casefold() for each in planned(result)}) == 90


@pytest.mark.usefixtures("few_in_memory")
def test_a_plan_has_no_photo_twice_and_limits_hold(crowd: Catalog) -> None:
    whole = plan(crowd, {})
    uris = [photo.uri for photo in planned(whole)]
    assert sorted(uris) == sorted(photo.uri for photo in crowd.photos)
    assert whole.summary().num_identities == 30
    limited = whole.limited_to(4)
    assert limited.summary().num_identities == 4
    assert limited.summary().num_later == 90 - limited.summary().num_photos

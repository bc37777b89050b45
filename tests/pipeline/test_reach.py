"""A photo below its target is not sold as protected: counts by encoder, last lines, exit codes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from pipeline.cli import app
from pipeline.inspection.status import read_status, status_lines
from pipeline.inspection.summary import summary_table
from pipeline.manifest_row import CosineColumn, LeftOutColumn, ManifestRow
from pipeline.options import PlanCounts, RunOutcome
from pipeline.output.fold import Fold
from pipeline.output.manifest import newest_rows
from pipeline.output.runs import finish_run
from pipeline.reach import Reach
from pipeline.reporting.displays import plan_line, progress_line, summary_lines
from pipeline.reporting.metrics import RunMetrics
from pipeline.reporting.reach_words import target_text
from pipeline.reporting.reporter import DecidedSet
from pipeline.reporting.tally import Tally
from pipeline.storage.store import open_store
from tests.pipeline.protected_album import ProtectedAlbum
from tests.sample_photos import encode, face_album, face_images, write_album

pytestmark = pytest.mark.usefixtures("restored_logging")


def cosine(encoder: str, after: float, held_out: bool = False) -> CosineColumn:
    return CosineColumn(encoder, held_out, before=0.99, after=after, after_handling=0.2)


def row(target_met: bool | None, *cosines: CosineColumn, status: str = "protected") -> ManifestRow:
    return ManifestRow(
        identity="ann",
        source_uri="file:///in/ann/1.jpg",
        source_version="1",
        status=status,  # type: ignore[arg-type]
        target_met=target_met,
        target_cosine=None if target_met is None else 0.1,
        identity_cosines=list(cosines),
    )


ROWS = [
    row(True, cosine("sface", 0.05), cosine("dlib", 0.1), cosine("judge", 0.7, held_out=True)),
    row(False, cosine("sface", 0.05), cosine("dlib", 0.2)),
    row(False, cosine("sface", 0.3), cosine("dlib", 0.2)),
    row(False, cosine("sface", 0.0), cosine("dlib", 0.0)),  # a face is not found again
    row(None, status="layer1_only"),
    row(None, status="skipped"),
]


def test_photos_are_counted_whole_and_by_the_encoders_of_the_loss() -> None:
    counts = Reach.of(ROWS)
    assert (counts.num_met, counts.num_missed, counts.num_face_lost) == (1, 3, 1)
    assert (counts.met_by, counts.missed_by) == (
        {"sface": 3, "dlib": 2},
        {"sface": 1, "dlib": 2},
    )
    assert counts.share_met == 0.25
    assert Reach.of(ROWS[:2]) + Reach.of(ROWS[2:]) == counts
    assert counts - Reach.of(ROWS[2:]) == Reach.of(ROWS[:2])
    assert target_text(counts) == (
        "reached by 1 of 4 photos (dlib 2, sface 3); 3 are protected less than asked for, "
        "in 1 of them a face is not found again"
    )


def test_rows_of_earlier_versions_are_counted_as_photos() -> None:
    counts = Reach.of(replace(each, target_cosine=None) for each in ROWS)
    assert (counts.num_met, counts.num_missed, counts.encoders) == (1, 3, [])


def test_without_any_face_there_is_no_target_and_no_word_of_it() -> None:
    counts = Reach.of(ROWS[4:])
    assert (counts.share_met, counts.all_missed, target_text(counts)) == (None, False, None)
    assert not counts.is_below(1.0)


def test_the_last_lines_say_who_missed_and_the_first_one_if_all_did() -> None:
    outcome = RunOutcome("r1", 0, {"protected": 5}, seconds=60, reach=Reach.of(ROWS))
    first, target = summary_lines(outcome)
    assert first == "run r1: protected 5; 1 min 00 s"
    assert target.startswith("target likeness reached by 1 of 4 photos (dlib 2, sface 3)")
    below = replace(outcome, reach=Reach.of(ROWS[1:3]), shortfalls=("too few",))
    assert summary_lines(below) == [
        "run r1: protected 5; NONE reached the target likeness; 1 min 00 s",
        "target likeness reached by 0 of 2 photos (dlib 0, sface 1); 2 are protected less than "
        "asked for",
        "too few",
    ]


def test_progress_and_metrics_count_them_while_the_run_works() -> None:
    tally = Tally()
    metrics = RunMetrics(tally, "a")
    tally.started(PlanCounts(num_photos=9, num_sets=2))
    for listener in (tally, metrics):
        listener.set_decided(DecidedSet({"protected": 5}, seconds=1, reach=Reach.of(ROWS)))
    assert "below target 3" in progress_line(tally)
    text = metrics.to_prom_text()
    assert 'dladiff_target_photos_total{output="a",reached="yes"} 1.0' in text
    assert 'dladiff_target_photos_total{output="a",reached="no"} 3.0' in text
    assert 'dladiff_encoder_target_photos_total{encoder="dlib",output="a",reached="no"} 2.0' in text


def test_a_run_with_nothing_to_do_does_not_hide_what_is_below() -> None:
    plan = PlanCounts(num_photos=0, num_sets=0, num_unchanged=16, num_below_target=5)
    assert plan_line(plan) == "nothing to do: 16 photos up to date (5 of them below target)"


def test_summaries_say_it_in_their_first_line_where_none_reached_it() -> None:
    assert summary_table(ROWS)[0] == ("photos", "6")
    assert dict(summary_table(ROWS))["target likeness"].startswith("reached by 1 of 4 photos")
    assert summary_table(ROWS[1:3])[0] == ("photos", "2, NONE reached the target likeness")


def dladiff(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), prog_name="dladiff")


@pytest.fixture
def half(tmp_path: Path) -> ProtectedAlbum:
    """An OUTPUT in which the two photos of one of two people missed their target."""
    album = ProtectedAlbum(tmp_path)
    album.begin("run-2", album.sets[1:])
    missed = [cosine("sface", 0.4)]
    album.commit(
        "run-2", album.sets[1], target_met=False, target_cosine=0.1, identity_cosines=missed
    )
    assert read_status(album.store, "run-2").reach.missed_by == {"sface": 2}
    Fold(album.store, "run-2")()
    finish_run(album.store, "run-2", {"exit_code": 0})
    return album


def test_status_tells_of_the_run_and_of_all_of_output(half: ProtectedAlbum) -> None:
    lines = status_lines(read_status(half.store))
    assert lines[0] == "run         run-2, finished, exit code 0, NONE reached the target likeness"
    assert (
        "target      reached by 0 of 2 photos (sface 0); 2 are protected less than asked for"
        in lines
    )
    assert lines[-1].startswith("OUTPUT      protected 4 (2 below their target), 2 runs")


def test_verify_does_not_end_cheerfully_and_has_the_same_exit_code_policy(
    half: ProtectedAlbum,
) -> None:
    output = str(half.output)
    plain = dladiff("verify", output, str(half.input))
    assert plain.exit_code == 0
    assert "target      reached by 2 of 4 photos" in plain.stdout
    assert plain.stdout.splitlines()[-1] == (
        "found       nothing wrong with the files; 2 below target"
    )
    assert dladiff("verify", output, "--min-target-met", "0.5").exit_code == 0
    strict = dladiff("verify", output, "--min-target-met", "0.6")
    assert strict.exit_code == 2
    assert "2 of 4 photos reached the target likeness, fewer than --min-target-met 0.6" in (
        strict.stderr
    )


def test_explain_says_it_where_it_says_protected(half: ProtectedAlbum) -> None:
    text = dladiff("explain", str(half.output), "ben/1.jpg").stdout
    assert "It is protected, less than asked for: its target likeness was missed" in text


def test_plan_counts_photos_that_stay_below(half: ProtectedAlbum) -> None:
    arguments = ("plan", str(half.input), str(half.output), "--on-method-change", "keep")
    assert "below target 2" in dladiff(*arguments).stdout


def test_faces_left_out_are_counted_by_cause_in_every_summary(half: ProtectedAlbum) -> None:
    half.begin("run-3", half.sets[:1])
    left_out = [LeftOutColumn("too_many", 13), LeftOutColumn("too_small", 2)]
    reason = "faces_left_out: too_many 13, too_small 2"
    columns: dict[str, Any] = {
        "status": "partly_protected",
        "reason": reason,
        "faces_left_out": left_out,
    }
    half.commit("run-3", half.sets[0], **columns)
    Fold(half.store, "run-3")()
    finish_run(half.store, "run-3", {"exit_code": 0})
    told = "30 faces in 2 photos (too many 26, too small 4)"
    status = dladiff("status", str(half.output)).stdout
    assert f"left out    {told}" in status
    assert "decided     partly_protected 2" in status
    verified = dladiff("verify", str(half.output), str(half.input))
    assert verified.exit_code == 0
    assert f"left out    {told}" in verified.stdout
    assert verified.stdout.splitlines()[-1] == (
        "found       nothing wrong with the files; 2 below target, 2 with faces left out"
    )
    rows = [each for each in newest_rows(half.store) if each.status == "partly_protected"]
    assert dict(summary_table(rows))["faces left out"] == told
    explained = dladiff("explain", str(half.output), "ann/1.jpg").stdout
    assert "It is protected in part: faces were seen in it that are not protected" in explained
    assert "too_many 13" in explained
    tally = Tally()
    metrics = RunMetrics(tally, "a")
    metrics.set_decided(DecidedSet({"partly_protected": 2}, seconds=1, reach=Reach.of(rows)))
    assert (
        'dladiff_faces_left_out_total{cause="too_many",output="a"} 26.0' in metrics.to_prom_text()
    )


@pytest.mark.slow
def test_the_command_says_whom_it_left_out_of_a_group(tmp_path: Path) -> None:
    (portrait,) = face_images(1)
    both = np.concatenate([portrait, portrait[:, ::-1]], axis=1)
    album = write_album(tmp_path / "in", {"ann/both.png": encode(both, "PNG")})
    few = ("loop.num_steps=2", "recognisers=[{name: sface, kind: sface}]", "workers=1")
    settings = [part for each in (*few, "detector.max_faces=1") for part in ("--set", each)]
    output = str(tmp_path / "out")
    command = ("protect", str(album), output, "--preset", "zero-shot", "--canary", "0", *settings)
    done = dladiff(*command)
    assert done.exit_code == 0, done.output
    assert "partly_protected 1" in done.stdout
    assert "left out: 1 face in 1 photo (too many 1), seen and not protected" in done.stdout
    (row,) = newest_rows(open_store(output))
    assert (row.status, row.reason) == ("partly_protected", "faces_left_out: too_many 1")
    assert row.epsilon_zeroshot_levels == 11
    assert dladiff("verify", output, str(album)).exit_code == 0
    more = [part.replace("max_faces=1", "max_faces=2") for part in command]
    again = ("--on-method-change", "keep", "--reprotect", "status=partly_protected")
    assert "protected 1" in dladiff(*more, *again).stdout
    (row,) = newest_rows(open_store(output))
    assert (row.status, row.num_faces, row.faces_left_out) == ("protected", 2, [])


@pytest.mark.slow
def test_the_command_on_a_real_photo_with_too_few_steps(tmp_path: Path) -> None:
    album, output = face_album(tmp_path / "in", {"ann": 1}), str(tmp_path / "out")
    few = ("loop.num_steps=2", "recognisers=[{name: sface, kind: sface}]", "workers=1")
    settings = [part for each in few for part in ("--set", each)]
    command = ("protect", str(album), output, "--preset", "zero-shot", *settings)
    done = dladiff(*command, "--canary", "0", "--min-target-met", "0.9")
    assert done.exit_code == 2, done.output
    lines = done.stdout.splitlines()
    assert "protected 1; NONE reached the target likeness" in lines[0]
    assert lines[1] == (
        "target likeness reached by 0 of 1 photo (sface 0); 1 is protected less than asked for"
    )
    assert lines[2] == (
        "0 of 1 photo reached the target likeness, fewer than --min-target-met 0.9 asks for"
    )
    again = dladiff(*command, "--batch", "--min-target-met", "0.9")
    assert again.exit_code == 0
    assert "nothing to do: 1 photo up to date (1 of them below target)" in again.stderr
    metrics = open_store(output).read(f"runs/{read_status(open_store(output)).run_id}/metrics.prom")
    assert b"dladiff_target_photos_total" in metrics

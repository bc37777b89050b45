"""An audit: who is sampled, what is kept of it, and that it harms no run."""

import json
from pathlib import Path
from typing import NoReturn

import pytest

from dladiff.config import preset_settings
from pipeline.config import RunConfig
from pipeline.errors import ConfigurationError, PipelineError
from pipeline.evaluation.audit import audit_run, audit_settings, sampled_people
from pipeline.evaluation.people import CLEAN, PROTECTED
from pipeline.inspection.report import write_report
from pipeline.inspection.status import read_status, status_lines
from pipeline.output.audits import Audit, read_audit
from pipeline.reporting.labelled import output_label
from tests.evaluation_scenes import InProcess
from tests.pipeline.protected_album import ProtectedAlbum
from tests.sample_photos import encode, face_images
from tests.tiny_models import write_checkpoint

FEW_STEPS = (
    "dreambooth.num_steps=2",
    "dreambooth.num_inference_steps=2",
    "untouched.num_inference_steps=2",
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def album(tmp_path: Path, checkpoint: Path) -> ProtectedAlbum:
    """Ann with four photos and ben with one, protected against the tiny checkpoint."""
    config = RunConfig(method=preset_settings("balanced").changed(f"model.checkpoint={checkpoint}"))
    faces = [encode(image, "JPEG", quality=95) for image in face_images(5)]
    return ProtectedAlbum(
        tmp_path,
        photos={f"ann/{n}.jpg": face for n, face in enumerate(faces[:4])} | {"ben/0.jpg": faces[4]},
        record={"config": json.loads(config.model_dump_json())},
    )


def audited(
    album: ProtectedAlbum, num_sets: int = 2, workers: InProcess | None = None
) -> tuple[Audit, list[str]]:
    said: list[str] = []
    found = audit_run(
        album.store, "run-1", num_sets, workers or InProcess(), said.append, FEW_STEPS
    )
    return found, said


def test_an_audit_keeps_numbers_only_and_names_nobody(
    album: ProtectedAlbum, tmp_path: Path
) -> None:
    before = {path for path in album.output.rglob("*") if path.is_file()}
    found, said = audited(album)
    added = {path for path in album.output.rglob("*") if path.is_file()} - before
    assert {path.name for path in added} == {"audit.json", "metrics.prom"}
    assert (found.num_people, found.num_photos, found.attack) == (1, 4, "dreambooth")
    assert {judge.judge for judge in found.judges} >= {"sface", "plain", "dlib"}
    assert sum(judge.headline for judge in found.judges) == 1
    assert said[-1] == "audit: 3 of 3 attacks"
    metrics = (album.output / "runs" / "run-1" / "metrics.prom").read_text()
    label = output_label(album.store.uri)
    assert f'dladiff_audit_people{{output="{label}"}} 1.0' in metrics
    assert all("output=" in line for line in metrics.splitlines() if line[0] != "#")
    texts = [metrics, (album.output / "runs" / "run-1" / "audit.json").read_text(), *said]
    assert not [name for name in ("ann", str(tmp_path / "in")) for t in texts if name in t]


def test_status_and_report_show_an_audit(album: ProtectedAlbum, tmp_path: Path) -> None:
    found, _ = audited(album)
    status = read_status(album.store)
    assert status.audit == found
    assert found == read_audit(album.store, "run-1")
    headline = found.headline
    assert headline is not None
    assert any(f"audit, {headline.judge}" in line for line in status_lines(status))
    page = write_report(str(album.output), tmp_path / "page.html").read_text()
    assert f"audit, {headline.judge}" in page


def test_an_audit_that_is_there_is_not_done_again_but_a_larger_one_is(
    album: ProtectedAlbum,
) -> None:
    first, _ = audited(album, num_sets=1)
    idle = InProcess(at_most=0)
    assert audited(album, num_sets=1, workers=idle)[0] == first
    busy = InProcess()
    assert audited(album, num_sets=2, workers=busy)[0].num_sets_asked == 2
    assert len(busy.done) == 3
    metrics = (album.output / "runs" / "run-1" / "metrics.prom").read_text()
    assert metrics.count("# HELP dladiff_audit_people") == 1


def test_the_sample_is_of_different_people_with_two_photos_and_always_the_same(
    tmp_path: Path,
) -> None:
    faces = [encode(image, "JPEG") for image in face_images(2)]
    photos = {f"p{n}/{i}.jpg": face for n in range(6) for i, face in enumerate(faces)}
    album = ProtectedAlbum(tmp_path, photos=photos | {"lone/0.jpg": faces[0]})

    def chosen(run_id: str, count: int) -> list[str]:
        people = sampled_people(album.store, run_id, count, num_trained=4)
        return [person.conditions[CLEAN][0].uri for person in people]

    three = chosen("run-1", 3)
    assert len(set(three)) == 3
    assert chosen("run-1", 3) == three
    assert chosen("run-1", 2) == three[:2]
    assert len(chosen("run-1", 100)) == 6  # the one with a single photo is left out
    assert chosen("run-2", 3) == []
    person = sampled_people(album.store, "run-1", 1, num_trained=4)[0]
    assert (person.identity, person.own_reference) == ("1", True)
    assert all("/out/images/" in photo.uri for photo in person.conditions[PROTECTED])


def test_sets_whose_originals_are_gone_are_passed_over(album: ProtectedAlbum) -> None:
    (album.input / "ann" / "2.jpg").unlink()
    found, _ = audited(album)
    assert (found.num_people, found.judges) == (0, ())
    assert any("nobody to attack" in line for line in status_lines(read_status(album.store)))


def test_a_run_that_has_not_finished_is_refused(tmp_path: Path) -> None:
    album = ProtectedAlbum(tmp_path, finish=False)
    with pytest.raises(ConfigurationError, match="`dladiff protect` finishes it"):
        audited(album)


def test_encoders_that_a_person_brought_judge_and_those_of_the_loss_are_marked() -> None:
    own = {"name": "own", "kind": "arcface_onnx", "path": "own.onnx", "role": "judge"}
    method = json.loads(preset_settings("zero-shot").model_dump_json())
    method["recognisers"].append(own)
    settings = audit_settings(method)
    assert [judge.name for judge in settings.judges][-1] == "own"
    assert settings.checkpoint == "embedded"
    assert settings.attack("dreambooth", aligned_faces=True).num_images == 4


@pytest.mark.parametrize("error", [PipelineError("no memory"), RuntimeError("a bug, ann/1.jpg")])
def test_a_failing_audit_fails_no_run(
    error: Exception, album: ProtectedAlbum, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.commands.protect import _audit
    from pipeline.reporting.displays import LineReporter

    def broken(*_: object) -> NoReturn:
        raise error

    monkeypatch.setattr("pipeline.commands.audit.do_audit", broken)
    said: list[str] = []
    _audit(str(album.output), "run-1", 1, RunConfig(), None, LineReporter(said.append))
    assert "audit: not done" in said[0]
    assert "dladiff audit OUTPUT --run run-1" in said[0]
    assert "ann" not in said[0]


def test_an_edited_record_is_named(album: ProtectedAlbum) -> None:
    album.store.write("runs/run-1/audit.json", b"{}")
    with pytest.raises(PipelineError, match=r"audit\.json is no audit"):
        read_audit(album.store, "run-1")

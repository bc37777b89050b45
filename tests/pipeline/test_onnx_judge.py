"""The real command with a recogniser of the user's own, exported in a way that once was refused."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.output.manifest import newest_rows
from pipeline.storage.store import open_store
from tests.dladiff.encoders.test_onnx_matrix import Door, export_student, reshape_one
from tests.sample_photos import face_album

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("restored_logging"),
    pytest.mark.filterwarnings("ignore:Using a non-tuple sequence"),
]


def test_a_graph_for_one_crop_at_a_time_judges(tmp_path: Path) -> None:
    graph = export_student(Door("0..255", reshape_one), tmp_path / "own.onnx")
    source, output = face_album(tmp_path / "in", {"ann": 1}), str(tmp_path / "out")
    judge = f"{{name: own, kind: arcface_onnx, path: {graph}, role: judge}}"
    settings = (
        "loop.num_steps=2",
        f"recognisers=[{{name: sface, kind: sface}}, {judge}]",
        "workers=1",
    )
    options = [part for each in settings for part in ("--set", each)]
    command = ["protect", str(source), output, "--preset", "zero-shot", *options]
    done = CliRunner().invoke(app, command, prog_name="dladiff")
    assert done.exit_code == 0, done.output
    (row,) = newest_rows(open_store(output))
    cosines = {one.encoder: one for one in row.identity_cosines or ()}
    own = cosines["own"]
    assert own.held_out
    assert own.before is not None
    assert own.after_handling is not None
    assert own.before > max(0.5, own.after_handling)

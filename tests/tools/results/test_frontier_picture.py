"""The picture of protection against what is seen shows the figures of its file."""

import json
from pathlib import Path

import pytest

from tools.results import frontier
from tools.results.__main__ import ROOT


def line(condition: str, jod: float, left: float) -> str:
    seen = {"autoencoder, none": {"one": left, "other": 2 * left}}
    return json.dumps({"condition": condition, "jod": {"median": jod}, "left": seen})


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    lines = [line("clean", 10, 0.4), line("DLADiff 9.3", 9.3, 0.1), line("mist 12", 9.0, 0.36)]
    (tmp_path / "docs").mkdir()
    (tmp_path / frontier.SOURCE).write_text("\n".join([*lines, line("mist 6", 9.6, 0.38)]))
    return tmp_path, tmp_path


def test_likeness_is_a_share_of_the_clean_photos(places: tuple[Path, Path]) -> None:
    lines = [json.loads(one) for one in (places[0] / frontier.SOURCE).read_text().splitlines()]
    curves = frontier.curves(lines)
    assert [*curves["DLADiff"][0]] == pytest.approx([9.3, 0.25])
    assert [value for point in curves["mist"] for value in point] == pytest.approx(
        [9.0, 0.9, 9.6, 0.95]
    )


def test_other_figures_make_the_picture_stale(places: tuple[Path, Path]) -> None:
    assert frontier.is_stale(*places)
    frontier.draw(*places)
    assert not frontier.is_stale(*places)
    source = places[0] / frontier.SOURCE
    source.write_text(source.read_text() + "\n" + line("aspl 12", 9.1, 0.37))
    assert frontier.is_stale(*places)


def test_the_picture_in_the_documents_is_not_stale() -> None:
    assert not frontier.is_stale(ROOT / "results", ROOT)

"""The page: whole, self-contained, and naming nobody."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from dladiff.evaluation.scores import Score
from pipeline.evaluation.page import PageContent, Sheet, make_page
from pipeline.evaluation.plots import PlotRow, interval_plot
from pipeline.evaluation.summary import NO_LOSS, Line

LINE = Line(
    attack="lora",
    handling="none",
    condition="protected",
    judge=NO_LOSS,
    in_loss=False,
    num_people=8,
    leak_clean=0.5,
    leak=0.25,
    floor=0.0,
    identity_score=0.3,
    face_detection_rate=0.9,
    effect=Score(0.5, 0.4, 0.6, 8),
    effect_smoothed=Score(0.45, 0.3, 0.55, 8),
    retained=None,
    behind_protected=None,
)


@pytest.fixture
def page() -> str:
    face = np.full((8, 8, 3), 200, np.uint8)
    return make_page(
        PageContent(
            facts=[("people", "8")],
            visibility=[("protected", {"psnr_db": 34.3, "ssim": 0.98, "lpips": 0.03})],
            lines=[LINE],
            sheets=[("person 1", [Sheet("clean <reference>", [face, face])])],
            notes=[],
        )
    )


def test_the_page_shows_effects_with_intervals_faces_and_a_warning(page: str) -> None:
    assert "0.50 [0.40, 0.60]" in page
    assert "Keep this page private" in page
    assert "data:image/jpeg;base64," in page
    assert "34.3" in page


def test_the_page_loads_nothing_and_runs_nothing(page: str) -> None:
    assert "<script" not in page
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert sources
    assert all(source.startswith("data:") for source in sources)


def test_text_is_escaped(page: str) -> None:
    assert "clean &lt;reference&gt;" in page


def test_a_plot_is_wellformed_and_places_values_on_one_scale() -> None:
    rows = [PlotRow("a < b", 0.0, None, None), PlotRow("c", 1.0, 0.5, 3.0, [("judge", 0.25)])]
    svg = ElementTree.fromstring(interval_plot(rows, "effect"))
    space = "{http://www.w3.org/2000/svg}"
    values = [c for c in svg.iter(f"{space}circle") if c.get("class") == "value"]
    ticks = {
        text.text: float(text.get("x", "nan"))
        for text in svg.iter(f"{space}text")
        if text.get("class") == "tick"
    }
    assert [float(circle.get("cx", "nan")) for circle in values] == [ticks["0"], ticks["1"]]
    (interval,) = [line for line in svg.iter(f"{space}line") if line.get("class") == "interval"]
    assert float(interval.get("x1", "nan")) == ticks["0.5"]
    # What lies beyond the axis ends at its end.
    assert float(interval.get("x2", "nan")) < 1020

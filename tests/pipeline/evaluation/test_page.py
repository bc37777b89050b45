"""The page: whole, self-contained, and naming nobody."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from dladiff.evaluation.scores import Score
from pipeline.evaluation.curves import CurvePoint
from pipeline.evaluation.page import PageContent, Sheet, make_page
from pipeline.evaluation.plots import PlotRow, curve_plots, interval_plot
from pipeline.evaluation.summary import WORST, Line

LINE = Line(
    attack="lora",
    handling="none",
    condition="protected",
    judge=WORST,
    family="dlib",
    in_loss=False,
    kin_of_loss=False,
    num_people=8,
    leak_clean=0.5,
    leak=0.25,
    floor=0.0,
    identity_score=0.3,
    face_detection_rate=0.9,
    kid_clean=0.125,
    kid=None,
    effect=Score(0.5, 0.4, 0.6, 8),
    effect_smoothed=Score(0.45, 0.3, 0.55, 8),
    retained=None,
    behind_protected=None,
    headline=True,
)
POINTS = [
    CurvePoint("lora", "none", "ours", "ours@12", 0.25, 0.5, WORST, 0.02, 36.0, 9.6, None),
    CurvePoint("lora", "none", "ours", "ours@18", 0.5, 0.75, WORST, 0.04, 33.0, 9.1, 19.0),
    CurvePoint("lora", "none", "a < b", "a < b@18", 0.0, None, WORST, 0.03, 34.0, 8.4, 19.0),
]
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def page() -> str:
    face = np.full((8, 8, 3), 200, np.uint8)
    return make_page(
        PageContent(
            facts=[("people", "8")],
            visibility=[("protected", {"psnr_db": 34.3, "ssim": 0.98, "lpips": 0.03})],
            lines=[LINE],
            curves=POINTS,
            sheets=[("person 1", [Sheet("clean <reference>", [face, face])])],
            notes=[],
        )
    )


def test_the_page_shows_effects_with_intervals_faces_and_a_warning(page: str) -> None:
    assert "0.50 [0.40, 0.60]" in page
    assert "Keep this page private" in page
    assert "data:image/jpeg;base64," in page
    assert "34.3" in page
    assert f"{WORST} (dlib)" in page
    assert "students distilled from SFace" in page


def test_the_page_loads_nothing_and_runs_nothing(page: str) -> None:
    assert "<script" not in page
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert sources
    assert all(source.startswith("data:") for source in sources)


def test_text_is_escaped(page: str) -> None:
    assert "clean &lt;reference&gt;" in page


def places(svg: str, kind: str) -> list[list[tuple[float, float]]]:
    """Where the markers of each artist of a kind stand, in points from the left and the top."""
    groups = [one for one in ElementTree.fromstring(svg).iter(f"{SVG}g") if one.get("id") == kind]
    return [
        [(float(u.get("x", "nan")), float(u.get("y", "nan"))) for u in group.iter(f"{SVG}use")]
        for group in groups
    ]


def test_a_plot_is_wellformed_and_places_values_on_one_scale() -> None:
    rows = [PlotRow("a < b", 0.0, None, None), PlotRow("$c$", 1.0, 0.5, 3.0, [0.25, -7.0])]
    svg = interval_plot(rows, "effect")
    assert svg == interval_plot(rows, "effect")
    assert "a &lt; b" in svg
    assert "$c$" in svg
    (zero, one), (none, rings) = ([p[0] for p in places(svg, "value")], places(svg, "other"))
    assert none == []
    scale = one[0] - zero[0]
    assert scale > 100
    # What lies beyond the axis ends at its end.
    assert [(x - zero[0]) / scale for x, _ in rings] == pytest.approx([0.25, -0.25])
    assert one[1] == rings[0][1] > zero[1]
    assert svg.count('id="interval"') == 1


def test_curves_join_the_trees_of_a_method_and_show_each_where_it_is_known(page: str) -> None:
    jod, lpips, psnr, seconds = curve_plots(POINTS)
    for svg, points_of_ours in ((jod, 2), (lpips, 2), (psnr, 2), (seconds, 1)):
        assert sorted(map(len, places(svg, "curve"))) == sorted([points_of_ours, 1])
        assert "a &lt; b@18" in svg
    (x12, _), (x18, _) = max(places(lpips, "curve"), key=len)
    assert x12 < x18
    # PSNR falls where LPIPS rises: the stronger tree comes first.
    (_, y18), (_, y12) = max(places(psnr, "curve"), key=len)
    assert y18 < y12
    assert len(places(jod, "mean")) == 2
    assert page.count("data:image/svg+xml;base64,") == 1 + 4


def test_one_tree_alone_is_no_curve() -> None:
    assert curve_plots(POINTS[:1]) == []

"""The cost of a plan, before it is run."""

import pyarrow as pa
import pytest

from pipeline.catalog.photos import CatalogReport
from pipeline.config import load_config
from pipeline.manifest_row import MANIFEST_SCHEMA
from pipeline.planning.estimate import MEASURED_COLUMNS, estimate, measured_seconds_per_photo
from pipeline.planning.plan import PhotoCounts, Plan
from pipeline.planning.planned_sets import PlannedSets
from pipeline.records import PhotoSet, SourcePhoto
from tests.source_states import METHOD


def plan_of(num_photos: int) -> Plan:
    photos = [SourcePhoto("a", f"file:///{n}", "images/x.png", 10, "1") for n in range(num_photos)]
    planned = PlannedSets([PhotoSet("k", "a", tuple(photos))])
    return Plan(planned, PhotoCounts(), [], CatalogReport())


def test_the_cost_is_taken_from_the_last_run_with_this_method() -> None:
    rows: list[tuple[str, str, float | None, str, str]]
    rows = [
        ("protected", METHOD, 90.0, "slow", "2026-01-01"),
        ("protected", METHOD, 3.0, "last", "2026-01-02"),
        ("protected", METHOD, 5.0, "last", "2026-01-03"),
        ("layer2_only", METHOD, 4.0, "last", "2026-01-04"),
        ("protected", "other", 900.0, "another", "2026-01-05"),
        ("skipped", METHOD, 0.1, "last", "2026-01-06"),
        ("protected", METHOD, None, "last", "2026-01-07"),
    ]
    manifest = pa.table(dict(zip(MEASURED_COLUMNS, zip(*rows, strict=True), strict=True)))
    measured = measured_seconds_per_photo(manifest, METHOD)
    assert measured == 4.0
    cost = estimate(plan_of(26), load_config(), measured)
    assert (cost.num_photos, cost.num_bytes, cost.seconds_per_photo) == (26, 260, 4.0)
    assert cost.worker_hours == pytest.approx(26 * 4 / 3600)
    assert cost.wall_hours(2) == pytest.approx(13 * 4 / 3600)
    assert "measured" in cost.basis


def test_without_earlier_rows_the_cost_is_a_default_or_unknown() -> None:
    empty = MANIFEST_SCHEMA.empty_table()
    assert measured_seconds_per_photo(empty, METHOD) is None
    by_default = estimate(plan_of(26), load_config("zero-shot"))
    assert by_default.seconds_per_photo == 9.0
    assert "default" in by_default.basis
    unknown = estimate(plan_of(26), load_config("balanced"))
    assert (unknown.worker_hours, unknown.wall_hours(3)) == (None, None)
    assert "--calibrate" in unknown.basis

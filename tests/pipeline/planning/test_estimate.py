"""The cost of a plan, before it is run."""

import pyarrow as pa
import pytest

from pipeline.catalog.photos import CatalogReport
from pipeline.config import load_config
from pipeline.manifest_row import MANIFEST_SCHEMA
from pipeline.planning.estimate import estimate, measured_seconds_per_photo
from pipeline.planning.plan import PhotoCounts, Plan
from pipeline.records import PhotoSet, SourcePhoto
from tests.source_states import METHOD


def plan_of(num_photos: int) -> Plan:
    photos = [SourcePhoto("a", f"file:///{n}", "images/x.png", 10, "1") for n in range(num_photos)]
    return Plan([PhotoSet("k", "a", tuple(photos))], PhotoCounts(), [], CatalogReport())


def test_the_cost_is_taken_from_earlier_rows_of_this_method() -> None:
    rows: list[tuple[str, str, float | None]]
    rows = [("protected", METHOD, 3.0), ("protected", METHOD, 5.0), ("layer2_only", METHOD, 4.0)]
    rows += [("protected", "other", 900.0), ("skipped", METHOD, 0.1), ("protected", METHOD, None)]
    columns = ("status", "method_digest", "seconds")
    manifest = pa.table(dict(zip(columns, zip(*rows, strict=True), strict=True)))
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
    assert "not known" in unknown.basis

"""The manifest's columns stand once: fields, Arrow types and descriptions agree."""

import dataclasses

import pyarrow as pa
import pytest

from pipeline.manifest_row import MANIFEST_SCHEMA, NEVER_NULL, FaceColumn, ManifestRow

ROW = ManifestRow(
    identity="ann", source_uri="file:///in/ann/1.jpg", source_version="1", status="protected"
)


def test_every_field_is_a_described_column_of_its_type() -> None:
    assert MANIFEST_SCHEMA.names == [field.name for field in dataclasses.fields(ManifestRow)]
    assert all(column.metadata[b"description"] for column in MANIFEST_SCHEMA)
    types = {
        "identity": pa.string(),
        "source_bytes": pa.int64(),
        "width": pa.int32(),
        "target_met": pa.bool_(),
        "psnr_db": pa.float32(),
        "status": pa.string(),
    }
    assert {name: MANIFEST_SCHEMA.field(name).type for name in types} == types
    face = MANIFEST_SCHEMA.field("faces").type.value_type
    assert face.field("landmarks").type == pa.list_(pa.float32())
    assert face.field("mask_extent").type == pa.list_(pa.int32())


def test_a_row_survives_as_plain_values() -> None:
    row = dataclasses.replace(ROW, faces=[FaceColumn([0.0] * 4, [0.5] * 10, 0.5)], width=7)
    assert ManifestRow.from_columns(row.to_columns()) == row


def test_an_unknown_or_missing_column_is_refused() -> None:
    with pytest.raises(TypeError, match="psnr"):
        ManifestRow.from_columns(ROW.to_columns() | {"psnr": 40.0})
    with pytest.raises(TypeError, match="source_version"):
        ManifestRow.from_columns({"identity": "ann", "source_uri": "u", "status": "protected"})
    assert NEVER_NULL == ("identity", "source_uri", "source_version", "status")

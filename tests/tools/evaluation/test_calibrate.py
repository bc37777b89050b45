"""The rank correlation of proxies with a measured effect, from tables as a run leaves them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.evaluation.rows import ATTACKS_SCHEMA, AttackRow
from pipeline.manifest_row import CosineColumn, ManifestRow
from pipeline.output.manifest_parts import create_part
from pipeline.records import photo_row
from pipeline.storage.store import open_store
from tests.pipeline.mini_run import source_photo
from tools.evaluation.calibrate import main, observations, rank_correlation, report_lines

LEAKS = {"ann": (0.40, 0.30), "ben": (0.35, 0.20), "cat": (0.25, 0.10), "dan": (0.22, 0.15)}
"""By person: what leaks under a weak and a strong protection, of .5 clean; the floor is .1."""


def attack_row(identity: str, condition: str, leak: float, **columns: Any) -> dict[str, Any]:
    """One judge that counts, and one that was in a loss and says the opposite."""
    scores = [
        {"judge": "dlib", "in_loss": False, "leak": leak, "floor": 0.1},
        {"judge": "sface", "in_loss": True, "leak": 1.0 - leak, "floor": 0.1},
    ]
    return {
        "identity": identity,
        "attack": "dreambooth",
        "handling": "none",
        "condition": condition,
        "status": "done",
        "num_photos": 2,
        "scores": scores,
        **columns,
    }


def protected_row(
    identity: str, number: int, likeness: float, on_photo: float | None = None
) -> ManifestRow:
    name = f"{identity}{number}"
    seen = None if on_photo is None else [CosineColumn("dlib", True, 1.0, on_photo, None)]
    return replace(
        photo_row(source_photo(name, b"x"), "protected"),
        identity=identity,
        source_uri=f"file:///clean/{identity}/{number}.jpg",
        output_uri=f"file:///out/images/{name}.png",
        identity_cosines=seen,
        model_likeness=[
            CosineColumn("dlib", True, 0.9, likeness, None),
            CosineColumn("sface", False, 0.9, 1 - likeness, None),
        ],
    )


def attacks() -> list[dict[str, Any]]:
    rows = []
    for identity, (weak, strong) in LEAKS.items():
        leaks = {"clean": 0.5, "weak": weak, "strong": strong}
        rows += [attack_row(identity, condition, leak) for condition, leak in leaks.items()]
    return rows


def attack_rows() -> list[AttackRow]:
    return [AttackRow.from_columns(row) for row in attacks()]


def manifests() -> dict[str, list[ManifestRow]]:
    """What the autoencoder shows ranks as the leak does; what the photo shows the other way."""
    found: dict[str, list[ManifestRow]] = {"weak": [], "strong": []}
    for identity, leaks in LEAKS.items():
        for name, leak in zip(found, leaks, strict=True):
            found[name] += [protected_row(identity, n, leak, 1 - leak) for n in range(2)]
    return found


def write_run(folder: Path, rows: Sequence[ManifestRow]) -> str:
    store = open_store(str(folder))
    assert create_part(store, "20261101T000000Z-aaaaaaaa", 0, rows, [])
    return str(folder)


def test_a_proxy_that_falls_with_every_effect_has_rho_minus_one_and_its_mirror_plus_one() -> None:
    found = observations(attack_rows(), manifests(), "dreambooth", "none")
    assert len(found) == 8
    likeness = rank_correlation(found, "model_likeness")
    on_photo = rank_correlation(found, "identity_cosines")
    assert likeness is not None
    assert on_photo is not None
    assert likeness.value == pytest.approx(-1)
    assert likeness.high == pytest.approx(-1)
    assert on_photo.value == pytest.approx(1)
    assert on_photo.num_people == 4


def test_only_judges_in_no_loss_and_encoders_in_no_loss_count() -> None:
    (found,) = (
        item
        for item in observations(attack_rows(), manifests(), "dreambooth", "none")
        if (item.identity, item.condition) == ("ann", "strong")
    )
    assert found.effect == pytest.approx((0.5 - 0.3) / (0.5 - 0.1))
    assert found.proxies["model_likeness"] == pytest.approx(0.3)


def test_photos_beyond_the_attacked_ones_are_no_evidence() -> None:
    rows = manifests()
    rows["weak"].append(protected_row("ann", 9, -1.0))
    before = observations(attack_rows(), manifests(), "dreambooth", "none")
    assert observations(attack_rows(), rows, "dreambooth", "none") == before


def test_people_of_whom_the_attack_shows_nothing_are_left_out() -> None:
    rows = [row for row in attack_rows() if row.identity != "ann"]
    nothing = [attack_row("ann", condition, 0.1) for condition in ("clean", "weak")]
    rows += [AttackRow.from_columns(row) for row in nothing]
    found = observations(rows, manifests(), "dreambooth", "none")
    assert {item.identity for item in found} == {"ben", "cat", "dan"}


def test_people_are_drawn_whole_so_that_one_person_has_no_interval() -> None:
    found = observations(attack_rows(), manifests(), "dreambooth", "none")
    of_one = [item for item in found if item.identity == "ann"]
    three = [*of_one, replace(of_one[0], condition="third", effect=0.1)]
    score = rank_correlation(three, "model_likeness")
    assert score is not None
    assert score.low is None
    assert score.num_people == 1


def test_a_proxy_that_was_not_measured_is_said_to_be_unknown() -> None:
    rows = {
        name: [replace(row, identity_cosines=None) for row in of]
        for name, of in manifests().items()
    }
    lines = report_lines(observations(attack_rows(), rows, "dreambooth", "none"))
    assert lines[1].startswith("model_likeness: rho -1.00")
    assert lines[2] == "identity_cosines: cannot be said from 0 observations"


def test_the_command_reads_a_result_and_manifests_and_names_nobody(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    results.mkdir()
    pq.write_table(pa.Table.from_pylist(attacks(), ATTACKS_SCHEMA), results / "attacks.parquet")
    named = [f"{n}={write_run(tmp_path / n, rows)}" for n, rows in manifests().items()]
    assert main([str(results), *named]) == 0
    said = capsys.readouterr().out
    assert "8 observations: 2 conditions, 4 people" in said
    assert "model_likeness: rho -1.00" in said
    assert not any(identity in said for identity in LEAKS)


def test_what_cannot_be_joined_is_refused_with_the_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = write_run(tmp_path / "run", manifests()["weak"])
    assert main([str(tmp_path), f"weak={output}"]) == 1
    assert "run `dladiff evaluate` first" in capsys.readouterr().err
    pq.write_table(pa.Table.from_pylist(attacks(), ATTACKS_SCHEMA), tmp_path / "attacks.parquet")
    assert main([str(tmp_path), f"other={output}"]) == 1
    assert "compare the names" in capsys.readouterr().err
    assert main([str(tmp_path), "weak"]) == 1
    assert "expected NAME=OUTPUT" in capsys.readouterr().err

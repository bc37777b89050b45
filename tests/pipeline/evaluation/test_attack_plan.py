"""Rows and cells: what depends on what."""

import inspect
import shutil
from pathlib import Path
from typing import Any

import pytest

from dladiff.config import EncoderSettings
from dladiff.errors import ModelError
from pipeline.commands.evaluate import evaluate
from pipeline.errors import ConfigurationError
from pipeline.evaluation.families import Standing, standings
from pipeline.evaluation.people import CLEAN, PROTECTED, find_people
from pipeline.evaluation.plan import EvaluationPlan, PlannedRow, make_plan
from pipeline.evaluation.settings import evaluation_settings, parse_judge, parse_judges
from tests.evaluation_scenes import few_images, write_trees
from tests.tiny_models import write_clip_vision


@pytest.fixture
def trees(tmp_path: Path) -> tuple[Path, Path]:
    return write_trees(tmp_path, {"ann": 6, "ben": 6})


def plan_of(clean: Path, protected: Path, **given: Any) -> EvaluationPlan:
    settings = few_images(**given)
    people = find_people(str(clean), {PROTECTED: str(protected)}, settings)
    return make_plan(people, settings, aligned_faces=True)


def row_of(plan: EvaluationPlan, **columns: str) -> PlannedRow:
    (row,) = [
        row
        for row in plan.rows
        if all(getattr(row, name) == value for name, value in columns.items())
    ]
    return row


def test_all_combinations_are_rows_and_the_floor_is_one_attack_for_everybody(
    trees: tuple[Path, Path],
) -> None:
    plan = plan_of(*trees, attacks=("dreambooth", "lora"), handlings=("none", "jpeg75"))
    assert len(plan.rows) == 2 * 2 * 2 * 2
    assert len(plan.attacks) == 16 + 1
    assert {row.floor.attack.attack.name for row in plan.rows} == {"untouched"}
    assert len({row.floor.key for row in plan.rows}) == 2  # one look per person


def test_zero_shots_floor_is_another_persons_clean_photos_under_the_same_handling(
    trees: tuple[Path, Path],
) -> None:
    plan = plan_of(*trees, attacks=("zero_shot",), handlings=("none", "jpeg75"))
    ann = row_of(plan, identity="ann", handling="jpeg75", condition=PROTECTED)
    ben = row_of(plan, identity="ben", handling="jpeg75", condition=CLEAN)
    assert ann.floor.attack == ben.cell
    assert ann.floor.reference == ann.measure.reference


def test_zero_shots_floor_of_a_single_person_is_the_untouched_model(
    trees: tuple[Path, Path],
) -> None:
    plan = plan_of(*trees, attacks=("zero_shot",), max_people=1)
    assert plan.rows[0].floor.attack.attack.name == "untouched"


def keys(plan: EvaluationPlan) -> dict[tuple[str, str], str]:
    return {(row.identity, row.condition): row.cell.key for row in plan.rows}


def test_a_cell_depends_on_content_and_not_on_place(
    trees: tuple[Path, Path], tmp_path: Path
) -> None:
    clean, protected = trees
    before = keys(plan_of(clean, protected))
    moved = shutil.copytree(clean, tmp_path / "elsewhere")
    assert keys(plan_of(moved, protected)) == before
    photo = protected / "ann" / "1.png"
    photo.write_bytes((protected / "ann" / "2.png").read_bytes())
    after = keys(plan_of(clean, protected))
    assert {key for key in after if after[key] != before[key]} == {("ann", PROTECTED)}


@pytest.mark.parametrize(
    ("change", "is_another"),
    [
        ({"num_images": 3}, True),
        ({"seed": 1}, True),
        ({"handlings": ("jpeg75",)}, True),
        ({"view": "whole"}, True),
        ({"judges": (EncoderSettings(name="plain", kind="student"),)}, False),
        ({"in_loss": ("sface",)}, False),
    ],
)
def test_what_changes_images_makes_another_attack_and_other_judges_do_not(
    trees: tuple[Path, Path], change: dict[str, Any], is_another: bool
) -> None:
    first, second = plan_of(*trees).rows[0], plan_of(*trees, **change).rows[0]
    assert (first.cell.key != second.cell.key) == is_another


def test_other_judges_look_again(trees: tuple[Path, Path]) -> None:
    judge = EncoderSettings(name="plain", kind="student")
    first, second = plan_of(*trees).rows[0], plan_of(*trees, judges=(judge,)).rows[0]
    assert first.measure.key != second.measure.key


def test_a_checkpoint_that_is_not_there_is_refused_before_any_work(
    trees: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=r"no model_index\.json"):
        plan_of(*trees, checkpoint=str(tmp_path))


def test_presets_and_what_a_person_says() -> None:
    quick = evaluation_settings("quick", {"handlings": None, "attacks": ["lora"]})
    assert (quick.attacks, quick.handlings) == (("lora",), ("none", "jpeg75_half"))
    assert quick.max_people == 1
    changed = evaluation_settings("core", {}, ["lora.num_steps=7"])
    assert changed.attack("lora", aligned_faces=True).num_steps == 7
    assert changed.attack("dreambooth", aligned_faces=True).num_steps == 200


def test_a_file_holds_what_set_takes_and_options_stand_above_it(tmp_path: Path) -> None:
    file = tmp_path / "evaluation.yaml"
    file.write_text(
        "preset: core\nmax_people: 3\nnum_images: 5\njudges: [sface, mine=/m.onnx]\n"
        "lora: {num_steps: 7}\n"
    )
    settings = evaluation_settings(None, {"num_images": 9}, ["max_people=2"], file)
    assert (settings.max_people, settings.num_images) == (2, 9)
    assert [judge.name for judge in settings.judges] == ["sface", "mine"]
    assert settings.attack("lora", aligned_faces=True).num_steps == 7
    own = EncoderSettings(name="own", kind="arcface_onnx", path="/own.onnx", role="judge")
    more = evaluation_settings(None, {}, (), file, [own])
    assert [judge.name for judge in more.judges] == ["sface", "mine", "own"]
    file.write_text("attakcs: [lora]\n")
    with pytest.raises(ConfigurationError, match=r"did you mean attacks\?"):
        evaluation_settings(None, {}, (), file)


def test_an_option_that_is_not_given_hides_nothing_that_a_file_says() -> None:
    options = inspect.signature(evaluate).parameters
    settings = ("people", "skip_people", "attacks", "handlings", "images", "view", "judges")
    assert {options[name].default for name in settings} == {None}


@pytest.mark.parametrize(
    ("preset", "given", "overrides", "message"),
    [
        ("slow", {}, [], "choose quick, core or full"),
        ("quick", {"attacks": ["magic"]}, [], "got 'magic'"),
        ("quick", {"handlings": ["soap"]}, [], "got 'soap'"),
        (
            "quick",
            {},
            ["lora.steps=3"],
            "unknown key .lora.steps.",
        ),
        ("quick", {}, ["lora.num_stepz=3"], r"did you mean lora\.num_steps\?"),
        ("quick", {}, ["lora.num_steps=[3"], r"--set .*: while parsing"),
        ("quick", {}, ["lora"], "expected key=value"),
        ("quick", {}, ["lora.num_steps=few"], "num_steps"),
        ("quick", {}, ["max_peeple=3"], r"did you mean max_people\?"),
        ("quick", {}, ["lora={num_stepz: 3}"], r"did you mean lora\.num_steps\?"),
        ("quick", {}, ["lora=3"], "expected settings of this attack"),
        (
            "quick",
            {"attacks": ["dreambooth"]},
            ["lora.num_steps=3"],
            "has no effect: .* --attack lora",
        ),
        ("quick", {"adapter": "a.safetensors"}, [], "adapter has no effect: .* --attack zero_shot"),
        ("quick", {"in_loss": ("sfase",)}, [], r"no judge 'sfase'.*did you mean sface\?"),
    ],
)
def test_wrong_wishes_are_refused_with_what_is_possible(
    preset: str, given: dict[str, Any], overrides: list[str], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        evaluation_settings(preset, given, overrides)


def test_a_person_may_say_which_family_a_judge_is_of() -> None:
    judges, families = parse_judges(["HSE/faceres=/models/f.onnx", "mine=/models/m/i.onnx"])
    assert [(judge.name, judge.path) for judge in judges] == [
        ("faceres", "/models/f.onnx"),
        ("mine", "/models/m/i.onnx"),
    ]
    assert families == {"faceres": "HSE"}
    found = standings(judges, {"other": "ArcFace"}, families)
    assert found == {
        "faceres": Standing("HSE", in_loss=False, kin_of_loss=False),
        "mine": Standing("ArcFace", in_loss=False, kin_of_loss=True),
    }
    assert standings(judges, {"faceres": ""}, families)["faceres"].kin_of_loss


def test_judges_are_named_by_file_or_from_the_package() -> None:
    own = parse_judge("mine=/models/mine.onnx")
    assert (own.name, own.kind, own.path) == ("mine", "arcface_onnx", "/models/mine.onnx")
    said = parse_judge("mine=/models/mine.onnx,pixels=0..1,channels=bgr")
    assert (said.path, said.pixels, said.channels) == ("/models/mine.onnx", "0..1", "bgr")
    with pytest.raises(ConfigurationError, match=r"expected name=model.onnx, then pixels=0..255"):
        parse_judge("mine=/models/mine.onnx,pixels=0..100")
    assert parse_judge("sface").kind == "sface"
    with pytest.raises(ConfigurationError, match=r"name=model\.onnx or one of sface"):
        parse_judge("nobody")


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"adapter_kind": "faceid-plus"}, "give --adapter FILE and --adapter-clip FOLDER"),
        ({"adapter_clip": "tower"}, "reads no CLIP tower"),
        ({"adapter_kind": "instantid"}, "give --adapter FILE and --adapter-controlnet FOLDER"),
        ({"adapter_controlnet": "net"}, "faceid has no ControlNet"),
        ({"adapter_kind": "photomaker"}, "adapter_kind: Input should be 'faceid'"),
    ],
)
def test_an_adapter_without_what_it_reads_is_refused(given: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        evaluation_settings("quick", given)


def test_instantid_is_named_by_its_network_and_sampled_as_its_authors_do(
    trees: tuple[Path, Path], tmp_path: Path
) -> None:
    file, net = tmp_path / "instantid.safetensors", tmp_path / "net"
    file.write_bytes(b"read only by its digest")
    net.mkdir()

    def first() -> PlannedRow:
        plan = plan_of(
            *trees,
            attacks=("zero_shot",),
            adapter=str(file),
            adapter_kind="instantid",
            adapter_controlnet=str(net),
        )
        return plan.rows[0]

    with pytest.raises(ConfigurationError, match="there is no model in"):
        first()
    keys = set()
    for content in (b"one", b"another"):
        (net / "diffusion_pytorch_model.safetensors").write_bytes(content)
        keys.add(first().cell.key)
    assert len(keys) == 2
    assert first().cell.attack.adapter_scale == 0.8


def test_a_plus_adapter_is_named_by_its_kind_and_its_clip_tower(
    trees: tuple[Path, Path], tmp_path: Path
) -> None:
    file = tmp_path / "plus.safetensors"
    file.write_bytes(b"read only by its digest")
    towers = [
        str(write_clip_vision(tmp_path / f"clip{seed}", hidden_size=16, seed=seed))
        for seed in (0, 1)
    ]

    def zero_shot(**given: Any) -> str:
        plan = plan_of(*trees, attacks=("zero_shot",), adapter=str(file), **given)
        return plan.rows[0].cell.key

    kinds = [("faceid-plus", towers[0]), ("faceid-plusv2", towers[0]), ("faceid-plus", towers[1])]
    found = {zero_shot(adapter_kind=kind, adapter_clip=tower) for kind, tower in kinds}
    assert len(found | {zero_shot()}) == 4


def test_only_attacks_on_unprotected_photos_are_named_by_their_remover(
    trees: tuple[Path, Path], tmp_path: Path
) -> None:
    file = tmp_path / "remover.safetensors"

    def keys(*handlings: str, **given: Any) -> list[str]:
        return [row.cell.key for row in plan_of(*trees, handlings=handlings, **given).rows]

    with pytest.raises(ConfigurationError, match="there is no file"):
        keys("unprotect", remover=str(file))
    found = []
    for content in (b"one", b"another"):
        file.write_bytes(content)
        found.append(keys("none", "unprotect", remover=str(file)))
    plain = set(keys("none"))
    assert plain == {key for key in found[0] if key in found[1]}
    assert len({*found[0], *found[1]}) == 3 * len(plain)

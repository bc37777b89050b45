"""What an evaluation does: people, attacks, handlings, judges. Imports no torch."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, ValidationError, model_validator

from dladiff.config import EncoderSettings, ModelSettings, Settings, put
from dladiff.evaluation.settings import (
    ATTACKS,
    HANDLINGS,
    REMOVAL,
    AttackName,
    AttackSettings,
    HandlingName,
    ViewName,
    attack_settings,
)
from dladiff.weight_files import REFERENCE_MODELS
from pipeline.config import nearest_hint, parse_assignment, read_yaml
from pipeline.errors import ConfigurationError

REFERENCE_ADAPTER = REFERENCE_MODELS / "adapters" / "sface-ip-adapter.safetensors"
"""The adapter of the embedded checkpoint; reads SFace embeddings."""

INSTANTID_SAMPLING = {"adapter_scale": 0.8, "guidance_scale": 5.0, "num_inference_steps": 30}
"""Values of its authors' example; the scale is of the adapter and of the ControlNet."""

ALL_PHOTOS = 1_000_000
"""``num_trained`` where nothing is trained: every photo that has its protected one."""

AdapterKind = Literal["faceid", "faceid-plus", "faceid-plusv2", "instantid"]
EvaluationPreset = Literal["quick", "core", "full"]


class EvaluationSettings(Settings):
    """One evaluation; everything here that changes a number is part of a cell's key."""

    attacks: tuple[AttackName, ...] = ("dreambooth", "lora")
    handlings: tuple[HandlingName, ...] = ("none", "jpeg75_half")
    max_people: Annotated[int, Field(ge=1)] | None = None
    """How many identities are attacked, by name; None: all."""
    skip_people: Annotated[int, Field(ge=0)] = 0
    """Leave out the first so many, e.g. those on whom something was tuned."""
    num_trained: Annotated[int, Field(ge=1)] = 4
    """Photos of a person that are attacked, first by name; the others are the clean reference."""
    num_images: Annotated[int, Field(ge=1)] = 16
    """Generated images per stop of an attack."""
    checkpoint: str = "embedded"
    """``embedded``, ``attacker``, a folder in diffusers format, or a hub id with ``revision``."""
    revision: str | None = None
    view: ViewName | None = None
    """How the attacker crops; None: the checkpoint's face template if it has one, else
    ``whole``."""
    judges: tuple[EncoderSettings, ...]
    judge_families: dict[str, str] = Field(default_factory=dict)
    """Family by judge where a person says it; the headline is the worst family outside losses."""
    in_loss: tuple[str, ...] = ()
    """Judges that were in a loss of the protection: their word is shown apart."""
    adapter: str | None = None
    """Adapter's file for ``zero_shot``; None: the embedded checkpoint's own."""
    adapter_kind: AdapterKind = "faceid"
    """``faceid-plus`` and ``faceid-plusv2`` read a CLIP tower besides; their files look alike."""
    adapter_clip: str | None = None
    """Folder of that CLIP vision tower in transformers format."""
    adapter_controlnet: str | None = None
    """``instantid``: folder of its ControlNet in diffusers format."""
    adapter_encoder: EncoderSettings = EncoderSettings(name="sface", kind="sface")
    """The encoder that the adapter was trained on."""
    remover: str | None = None
    """``unprotect``: file of a remover, see ``dladiff.evaluation.remover``."""
    seed: int = 0
    changes: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Other attack settings than the frozen ones, by attack: makes numbers incomparable."""

    @property
    def adapter_path(self) -> Path:
        """The adapter's file."""
        return REFERENCE_ADAPTER if self.adapter is None else Path(self.adapter)

    @property
    def adapter_clip_encoder(self) -> EncoderSettings | None:
        """The CLIP tower as ``dladiff`` names encoders; None where the adapter reads none."""
        if self.adapter_clip is None:
            return None
        return EncoderSettings(name="clip", kind="clip", path=self.adapter_clip)

    @model_validator(mode="after")
    def _adapter_and_its_networks(self) -> "EvaluationSettings":
        is_plus = self.adapter_kind.startswith("faceid-plus")
        if is_plus and (self.adapter is None or self.adapter_clip is None):
            raise ValueError(
                f"{self.adapter_kind} needs its file and a CLIP tower: give --adapter FILE and "
                "--adapter-clip FOLDER"
            )
        if self.adapter_clip is not None and not is_plus:
            raise ValueError(
                f"{self.adapter_kind} reads no CLIP tower: say --adapter-kind faceid-plus or "
                "faceid-plusv2, or leave --adapter-clip out"
            )
        is_instantid = self.adapter_kind == "instantid"
        if is_instantid and (self.adapter is None or self.adapter_controlnet is None):
            raise ValueError(
                "instantid needs its file and its ControlNet: give --adapter FILE and "
                "--adapter-controlnet FOLDER"
            )
        if self.adapter_controlnet is not None and not is_instantid:
            raise ValueError(
                f"{self.adapter_kind} has no ControlNet: say --adapter-kind instantid, or leave "
                "--adapter-controlnet out"
            )
        return self

    @model_validator(mode="after")
    def _remover_and_its_handling(self) -> "EvaluationSettings":
        if REMOVAL in self.handlings and self.remover is None:
            raise ValueError(
                f"the handling {REMOVAL} needs a remover: give --remover FILE, made by `python -m "
                "tools.training.remover CLEAN PROTECTED FILE` from photos of other people"
            )
        if self.remover is not None and REMOVAL not in self.handlings:
            raise ValueError(
                f"a remover has no effect without its handling: say --handling {REMOVAL}, or "
                "leave --remover out"
            )
        return self

    @property
    def surrogate(self) -> ModelSettings:
        """The checkpoint as ``dladiff`` names it."""
        return ModelSettings(checkpoint=self.checkpoint, revision=self.revision)

    def attack(self, name: AttackName, aligned_faces: bool) -> AttackSettings:
        """The settings of an attack as this evaluation runs it."""
        frozen = attack_settings(name, aligned_faces)
        values = frozen.model_dump() | {"num_images": self.num_images, "seed": self.seed}
        if name == "zero_shot" and self.adapter_kind == "instantid":
            values |= INSTANTID_SAMPLING
        return AttackSettings(**(values | self.changes.get(name, {})))


_PRESETS: dict[str, dict[str, Any]] = {
    "quick": {"max_people": 1, "num_images": 8},
    "core": {},
    "full": {
        "attacks": ("dreambooth", "lora", "textual_inversion", "zero_shot"),
        "handlings": tuple(name for name in HANDLINGS if name != REMOVAL),
    },
}


def evaluation_settings(
    preset: str | None,
    given: Mapping[str, Any],
    overrides: Iterable[str] = (),
    file: str | Path | None = None,
    more_judges: Sequence[EncoderSettings] = (),
) -> EvaluationSettings:
    """A preset, then a file, then ``key=value`` overrides, then what options said.

    Args:
        preset: ``quick``, ``core`` or ``full``; None: the file's, else ``quick``.
        given: Fields by name; None: not given.
        overrides: ``max_people=4``, ``dreambooth.num_steps=50`` and the like.
        file: YAML with the same keys, and ``preset``.
        more_judges: Beside those of the file or, without any there, the package's.

    Raises:
        ConfigurationError: With the value found and the remedy.
    """
    tree = {} if file is None else read_yaml(file, "settings of an evaluation")
    preset = preset or tree.pop("preset", None) or "quick"
    if preset not in get_args(EvaluationPreset):
        raise ConfigurationError(f"no preset {preset!r}: choose quick, core or full")
    for override in overrides:
        path, value = parse_assignment(override)
        _require_known(path[:1] if isinstance(value, Mapping) else path)
        try:
            put(tree, path, value)
        except ValueError as error:
            raise ConfigurationError(str(error)) from None
    _require_keys(tree)
    changes: dict[str, Any] = {name: tree.pop(name) for name in ATTACKS if name in tree}
    values = {"judges": default_judges(), **_PRESETS[preset], **_encoders_by_name(tree)}
    values |= {name: value for name, value in given.items() if value is not None}
    values["judges"] = (*values["judges"], *more_judges)
    try:
        settings = EvaluationSettings(**values, changes=changes)
        for name in ATTACKS:
            settings.attack(name, aligned_faces=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        if not where:  # said by several settings together
            raise ConfigurationError(first["msg"].removeprefix("Value error, ")) from None
        raise ConfigurationError(f"{where}: {first['msg']}, got {first['input']!r}") from None
    names = [judge.name for judge in settings.judges]
    if len(set(names)) != len(names):
        raise ConfigurationError(f"judges need different names, got {', '.join(names)}")
    _refuse_in_vain(settings)
    return settings


def _refuse_in_vain(settings: EvaluationSettings) -> None:
    """Refuses what was said of attacks that are not made, and of judges that are not asked."""
    of_attacks = [
        (f"{attack}.{name}", attack) for attack, of in settings.changes.items() for name in of
    ]
    if settings.adapter is not None:
        of_attacks.append(("adapter", "zero_shot"))
    for name, attack in of_attacks:
        if attack not in (*settings.attacks, "untouched"):  # that is the floor of the others
            raise ConfigurationError(
                f"{name} has no effect: this evaluation makes {', '.join(settings.attacks)}; say "
                f"--attack {attack} too, or leave it out"
            )
    judges = [judge.name for judge in settings.judges]
    for name in (*settings.in_loss, *settings.judge_families):
        if name not in judges:
            raise ConfigurationError(
                f"no judge {name!r} is asked, so nothing can be said of it: judges are "
                f"{', '.join(judges)}{nearest_hint(name, judges)}"
            )


def _encoders_by_name(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Judges and the adapter's encoder as a person names them: ``sface``, ``mine=model.onnx``."""
    found = dict(tree)
    if isinstance(judges := tree.get("judges"), list):
        found["judges"] = [parse_judge(j) if isinstance(j, str) else j for j in judges]
    if isinstance(encoder := tree.get("adapter_encoder"), str):
        found["adapter_encoder"] = parse_judge(encoder)
    return found


_KEYS = [name for name in EvaluationSettings.model_fields if name != "changes"]
_KEYS += [f"{name}.{field}" for name in ATTACKS for field in AttackSettings.model_fields]


def _require_keys(tree: Mapping[str, Any]) -> None:
    for name, value in tree.items():
        if name not in ATTACKS:
            _require_known([name])
            continue
        if not isinstance(value, Mapping):
            raise ConfigurationError(f"{name}: expected settings of this attack, got {value!r}")
        for field in value:
            _require_known([name, field])


def _require_known(path: Sequence[str]) -> None:
    """Refuses a key that no evaluation has, naming the nearest one."""
    key = ".".join(path)
    if key not in _KEYS and key not in ATTACKS:
        raise ConfigurationError(
            f"unknown key {key!r}: expected a setting of the evaluation, or ATTACK.SETTING with "
            f"one of {', '.join(ATTACKS)}{nearest_hint(key, _KEYS)}"
        )


def default_judges() -> tuple[EncoderSettings, ...]:
    """The judges that come with the package: SFace, its students, and dlib's."""
    judges = [EncoderSettings(name="sface", kind="sface")]
    judges += [
        EncoderSettings(name=name, kind="student") for name in ("plain", "mobile", "convnext")
    ]
    return (*judges, EncoderSettings(name="dlib", kind="dlib_resnet", role="judge"))


def parse_judges(texts: Iterable[str]) -> tuple[tuple[EncoderSettings, ...], dict[str, str]]:
    """Judges as a person names them, and the families that they say, by judge.

    Args:
        texts: Each as of ``parse_judge``, ``family/`` before it where it is said.

    Raises:
        ConfigurationError: As of ``parse_judge``.
    """
    judges, families = [], {}
    for text in texts:
        family, slash, _ = text.partition("=")[0].rpartition("/")
        judge = parse_judge(text.removeprefix(family + slash))
        judges.append(judge)
        if family:
            families[judge.name] = family
    return tuple(judges), families


def parse_judge(text: str) -> EncoderSettings:
    """A judge as a person names it: ``name=model.onnx``, an ArcFace-type file of theirs.

    ``name=model.onnx,pixels=0..255,channels=bgr`` says what the file takes, see
    ``EncoderSettings``.

    Raises:
        ConfigurationError: If it is neither that nor the name of a judge of the package.
    """
    name, separator, path = text.partition("=")
    if separator and name and path:
        path, *said = path.split(",")
        entry = dict(one.partition("=")[::2] for one in said)
        given = {"name": name, "kind": "arcface_onnx", "path": path, "role": "judge"}
        try:
            return EncoderSettings.model_validate(entry | given)
        except ValidationError as error:
            ways = "pixels=0..255, 0..1 or -1..1, and channels=rgb or bgr"
            raise ConfigurationError(
                f"--judge {text!r}: {error.errors()[0]['msg']}; expected name=model.onnx, then "
                f"{ways}"
            ) from error
    known = {judge.name: judge for judge in default_judges()}
    if text in known:
        return known[text]
    raise ConfigurationError(
        f"--judge {text!r}: expected [family/]name=model.onnx or one of {', '.join(known)}"
    )

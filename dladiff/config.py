"""All settings that change the protected bytes, and the presets. Imports no torch.

Budgets and step sizes stand here in 8-bit levels (1 level = 1/255 of the [0, 1] range); the code
converts them once with ``image_values.levels_to_unit``. [P] marks a value of the paper
(arXiv:2511.19910), [X] a choice of ours where it is silent.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from dladiff.former_settings import former_settings

OwnPresetName = Literal["paper", "strong", "balanced", "discreet", "fast", "zero-shot"]
OtherMethodName = Literal[
    "advdm",
    "aspl",
    "caat",
    "facelock",
    "fsmg",
    "metacloak-style",
    "mist",
    "mist-untargeted",
    "photoguard",
    "simac",
]
"""Methods of other papers, each a preset too."""
PresetName = Literal[OwnPresetName, OtherMethodName]


class Settings(BaseModel):
    """Base of all settings: frozen, unknown keys refused, every field documented."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


PixelRange = Literal["measured", "-1..1", "0..255", "0..1"]


class EncoderSettings(Settings):
    """One identity encoder of a loss, or one that only measures."""

    name: str
    """Short name in manifests and reports, e.g. ``sface``."""
    kind: Literal["sface", "student", "dlib_resnet", "arcface_onnx", "clip"]
    """``sface``, ``dlib_resnet`` and ``student`` come with the package, others need ``path``."""
    path: str | None = None
    """ONNX file (``arcface_onnx``) or folder in transformers format (``clip``)."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """Share in the loss, relative to the other encoders."""
    role: Literal["lead", "beside", "judge"] = "lead"
    """``lead``: in every loss, and asked whether a photo has reached its target. ``beside``: in the
    likeness loop alone, for small networks, which see a face otherwise than large ones do [X,
    measured] but score strangers .2. ``judge``: only measures; never in a loss or a stop rule."""
    pixels: PixelRange = "measured"
    """``arcface_onnx`` only: the values that the graph takes. ``measured``: those in which it tells
    a dozen faces apart best, found out anew each time it is loaded."""
    channels: Literal["rgb", "bgr"] = "rgb"
    """``arcface_onnx`` only: the order of the colours that the graph takes."""
    clip_output: Literal["pooled", "penultimate"] = "penultimate"
    """CLIP only: pooled image embedding, or ``hidden_states[-2]`` as IP-Adapter-Plus reads it."""

    @model_validator(mode="before")
    @classmethod
    def _name_the_role(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and "held_out" in values:
            raise ValueError("held_out is now role: true is `role: judge`, false `role: lead`")
        return values

    @property
    def held_out(self) -> bool:
        """Whether it only measures."""
        return self.role == "judge"

    @model_validator(mode="after")
    def _path_where_needed(self) -> "EncoderSettings":
        if self.kind in ("arcface_onnx", "clip") and not self.path:
            raise ValueError(f"encoder {self.name!r} of kind {self.kind!r} needs a path")
        is_said = (self.pixels, self.channels) != ("measured", "rgb")
        if is_said and self.kind != "arcface_onnx":
            raise ValueError(
                f"encoder {self.name!r}: pixels and channels are of kind 'arcface_onnx' alone, "
                f"{self.kind!r} knows its own"
            )
        return self


class FaceDetectorSettings(Settings):
    """Where faces and their five landmarks come from."""

    kind: Literal["yunet", "insightface"] = "yunet"
    """``yunet`` comes with the package; ``insightface`` reads a pack of the user's."""
    pack: str | None = None
    """insightface pack: a folder with its .onnx files, or the name of one below
    ``~/.insightface/models``, such as ``buffalo_l`` (the default); nothing is downloaded."""
    min_score: Annotated[float, Field(ge=0, le=1)] = 0.6
    """Detections below are ignored. Raising it misses blurred and turned faces."""
    min_size_px: Annotated[int, Field(ge=8)] = 24
    """Faces with a shorter box side are left alone: pixels of the photo, whatever its size."""
    max_faces: Annotated[int, Field(ge=1)] = 64
    """At most this many faces of a photo, largest first. Faces that this, ``min_size_px`` or
    ``min_score`` leave out are counted in the photo's row, which is ``partly_protected`` then."""


class AutoencoderSettings(Settings):
    """One more autoencoder that shall not show the face: other model families have others."""

    checkpoint: str
    """A folder in diffusers format, or a hub id (needs ``revision``): a checkpoint's, whose ``vae``
    is read, or an autoencoder's own. Which to name against which model: docs/models.md."""
    revision: str | None = None
    """Commit hash of a hub checkpoint, so that the bytes stay the same."""
    resolution: Annotated[int, Field(ge=32)] | None = None
    """Side in pixels at which it works; None: as its configuration says."""


class ModelSettings(AutoencoderSettings):
    """The diffusion checkpoint: its autoencoder where a face is found, all of it elsewhere."""

    checkpoint: str = "embedded"
    """``embedded``, ``attacker`` (a second model, to measure transfer), a local folder in diffusers
    format, or a hub id (needs ``revision``)."""


class BudgetSettings(Settings):
    """How far a photo's values may move, in 8-bit levels, and where."""

    fine_tuning_levels: Annotated[float, Field(ge=0, le=64)] = 7.0
    """eta_ft [P]: everywhere on a photo without a face; in faces it adds to eta_zs."""
    zero_shot_levels: Annotated[float, Field(ge=0, le=64)] = 11.0
    """eta_zs [P], in faces alone. Raising it protects more and shows more."""
    surroundings_levels: Annotated[float, Field(ge=0, le=64)] = 3.0
    """Outside face masks, at most eta_ft: what lies around a face tells a model little about it
    and shows first."""
    floor_share: Annotated[float, Field(gt=0, le=1)] = 0.35
    """Share of the budget on smooth, bright places such as skin and sky, where the eye would see
    it; 1: a flat budget."""
    box_scale: Annotated[float, Field(ge=1)] = 1.1
    """Side of a face's mask relative to the long side of its box. Raising it shows more: 1.3 costs
    1.3 dB and moves no unseen encoder further [X, measured]."""


class LoopSettings(Settings):
    """The steps on photos with a face (docs/method.md).

    Steps on what the autoencoder shows (L_id) and steps on the photo itself spend one budget.
    ``zero-shot``, the paper's layer 2 and methods of other papers read the first three alone.
    """

    num_steps: Annotated[int, Field(ge=1)] = 36
    step_size_levels: Annotated[float, Field(gt=0)] = 0.5
    """Mean signed step. In the loop it falls linearly from twice to nearly none, so that the last
    steps settle instead of flickering within the budget; elsewhere it stays."""
    stop_cosine: Annotated[float, Field(ge=-1, le=1)] | None = None
    """Stop early, after a few settling steps, once the autoencoder shows no photo of the set with
    a higher cosine than this to any recogniser that leads, on average over ten looks, handled
    ones among them; on the photo itself, once every recogniser sees less. None: take all steps."""
    visibility_jod: Annotated[float, Field(ge=5, le=9.95)] | None = 9.2
    """What each face keeps of its looks, in JOD at twice its size (``face_visibility_jod``; 10: no
    difference is seen). Steps go where they protect most for what they show, and the levels that
    are used follow from the measure, face by face, within the budgets. Raising it shows less and
    protects less. None: signed steps, which use the whole budget [X]."""
    photo_step_every: Annotated[int, Field(ge=2)] = 2
    """Every so many steps one looks at the photo itself, as zero-shot adapters do. Where what is
    seen is held, its gradient is smoothed; such steps also move what the autoencoder shows."""
    finishing_steps: Annotated[int, Field(ge=0)] = 16
    """Afterwards, on the photo alone, by the recognisers that lead and without momentum, for faces
    that still ask for it."""
    photo_target_cosine: float = -0.05
    """Faces whose cosine on the photo is below ask for no more: a surplus would only be seen."""
    mixtures_per_step: Annotated[int, Field(ge=0)] = 2
    """Random convex mixtures of the photos' latents, which a UNet learns from several photos."""

    def looks_before(self, step: int) -> int:
        """Steps before this one that look at what the model shows: the others look at the photo."""
        return step - step // self.photo_step_every


class SurrogateSettings(Settings):
    """Surrogates that learn the photos, and steps against them: photos without a face.

    The preset ``paper`` has them for all photos; methods of other papers train theirs as said here.
    """

    prompt: str = "a photo of sks person"
    adaptation: Literal["lora", "full"] = "lora"
    lora_rank: Annotated[int, Field(ge=1)] = 16
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """[X]: the paper gives none, and it is the most sensitive value. None: as calibrated and
    stored beside the checkpoint (``learning_rates.json``), else 1e-4 (LoRA) or 5e-6 (full)."""
    batch_size: Annotated[int, Field(ge=1)] = 4
    """Photos per fine-tuning step [P: 4]."""
    step0_steps: Annotated[int, Field(ge=0)] = 200
    """Fine-tuning steps of the static surrogate on the clean photos (Step 0)."""
    step_size_levels: Annotated[float, Field(gt=0)] = 0.6375
    """Signed step sigma_ft = 5e-3 on [-1, 1] [P] = 2.5e-3 on [0, 1] [X]."""
    num_epochs: Annotated[int, Field(ge=1)] = 30
    attention_steps: Annotated[int, Field(ge=0)] = 2
    """K1: steps per epoch that raise L_att."""
    denoising_steps: Annotated[int, Field(ge=0)] = 4
    """K2: steps per epoch that raise L_den."""
    surrogate_steps: Annotated[int, Field(ge=0)] = 3
    """K3: optimiser steps per epoch on the dynamic surrogate."""
    timesteps_per_step: Annotated[int, Field(ge=1)] = 4
    """T: timesteps whose latent gradients add up before one backward pass of the VAE."""


class PaperSettings(Settings):
    """The paper's choices where ours are others; each can be turned to ours, or left out."""

    crop: bool = True
    """Layer 2 on the aligned crop, plain steps on unscaled views, the perturbation warped back.
    False: a grid over the face box, with momentum."""
    dual_surrogates: bool = True
    """DSUR. False: no Step 0, K1 = 0 and its steps given to K2."""
    max_reference_photos: Annotated[int, Field(ge=0)] = 4
    """Smaller sets are filled up with other photos of the person for Step 0."""
    dynamic_fine_tuning: bool = True
    """ADFT. False: K3 = 0, the dynamic surrogate stays the checkpoint."""
    joint_steps: bool = False
    """One forward gives maps and prediction; step on the sum of both normalised gradients, with
    momentum, instead of K1 then K2 steps, which can undo each other [X, measured]."""
    dynamic_reset_epochs: Annotated[int, Field(ge=1)] | None = None
    """Every so many epochs the dynamic surrogate returns to the checkpoint, where attackers
    start [X, measured]; None: never [P]."""
    timestep_choice: Literal["stratified", "uniform", "gradient"] = "uniform"
    """``gradient``: prefer timesteps whose image gradient is large (after SimAC)."""
    include_largest_maps: bool = True
    """Also read attention at the largest resolution that has it."""
    drop_bos: bool = False
    """Drop the BOS column of cross-attention and renormalise [X]."""
    use_views: bool = False
    """Random views of the native photo; False: whole photo, short side to the resolution."""


OUR_LAYERS = PaperSettings(
    crop=False,
    max_reference_photos=0,
    joint_steps=True,
    dynamic_reset_epochs=2,
    timestep_choice="stratified",
    include_largest_maps=False,
    drop_bos=True,
    use_views=True,
)
"""What ``zero-shot`` and photos without a face have instead [X, measured]."""


class MethodSettings(Settings):
    """Everything that changes the bytes of a protected photo; its digest names the method."""

    preset: PresetName = "balanced"
    """The preset these values started from; a label."""
    seed: int = 0
    against: Literal["all", "fine-tuning", "zero-shot"] = "all"
    """Attacks that photos are protected from. ``zero-shot``: no diffusion checkpoint is read and
    photos without a face are left; ``fine-tuning``: no step looks at the photo itself."""
    paper: PaperSettings | None = None
    """Both layers one after the other, as the paper has them (preset ``paper``); None: one loop."""
    other: OtherMethodName | None = None
    """A method of another paper in place of ours, within our budgets and masks."""
    budget: BudgetSettings = BudgetSettings()
    loop: LoopSettings = LoopSettings()
    surrogates: SurrogateSettings = SurrogateSettings()
    handling: bool = True
    """Whether losses see photos as platforms and attackers handle them: JPEG, half size, blur,
    noise, drawn anew at each step."""
    target_cosine: float = 0.3
    """Reported as met or not, on the re-read file: SFace takes two photos for one person from .31
    on. Where nothing holds back what is seen it is .1, th_s of the paper's table."""
    recognisers: tuple[EncoderSettings, ...] = (
        EncoderSettings(name="sface", kind="sface"),
        EncoderSettings(name="dlib", kind="dlib_resnet"),
        EncoderSettings(name="plain", kind="student", role="beside"),
        EncoderSettings(name="mobile", kind="student", role="beside"),
    )
    """Networks that tell people apart, each with its role. Two families lead: encoders of one
    family move an encoder of another much less [X, measured]. Two students stand beside them; the
    third, ``convnext``, stays out: it judges."""
    model: ModelSettings = ModelSettings()
    autoencoders: tuple[AutoencoderSettings, ...] = ()
    """More autoencoders in L_id besides the checkpoint's own, in turns; no UNet is needed, so that
    one photo can stand against several model families."""
    detector: FaceDetectorSettings = FaceDetectorSettings()
    micro_batch: Annotated[int, Field(ge=1)] = 8
    """Images per forward pass; changes rounding in the last bits, hence the digest."""
    threads: Annotated[int, Field(ge=1)] = 1
    """CPU threads of a worker; changes rounding in the last bits, hence the digest. More workers
    beat more threads, which wait for each other where a machine is busy with something else."""
    precision: Literal["auto", "float32"] = "auto"
    """Of autoencoders and UNets on a GPU: ``auto`` is bfloat16, and lets all else use TF32; mean
    cosines change by at most .01 [X, measured]. Perturbation, adapters and recognisers stay
    float32; on a CPU all does."""
    keep_metadata: Literal["none", "copyright"] = "none"
    """What of EXIF and XMP survives. GPS and device data never do."""

    def changed(self, *changes: str) -> "MethodSettings":
        """These settings with other values, checked like all: ``changed("loop.num_steps=30")``.

        Args:
            changes: Each ``path=value``, the value in YAML, as ``--set`` takes it.

        Raises:
            ValueError: If a path names no setting or a value is out of its range.
        """
        values: dict[str, Any] = self.model_dump(mode="json")
        for change in changes:
            put(values, *parse_change(change))
        return MethodSettings.model_validate(values)

    @property
    def reads_model(self) -> bool:
        """Whether a diffusion checkpoint is read."""
        return self.against != "zero-shot"

    @property
    def looks_at_photo(self) -> bool:
        """Whether steps are taken on the photo itself, as zero-shot adapters see it."""
        return self.against != "fine-tuning"

    @property
    def likeness_leads(self) -> bool:
        """Whether photos with faces go through L_id's loop."""
        return self.other is None and self.paper is None and self.reads_model

    @property
    def layers(self) -> PaperSettings:
        """How surrogates and steps on crops work where the loop does not."""
        return self.paper or OUR_LAYERS

    @property
    def num_references(self) -> int:
        """Sets are filled up to so many photos of the person; 0: nothing would read them."""
        of_step0 = self.reads_model and self.other is None and self.layers.dual_surrogates
        return self.layers.max_reference_photos if of_step0 else 0

    @property
    def face_levels(self) -> float:
        """The budget inside face masks, 8-bit levels."""
        of_photo = self.budget.zero_shot_levels if self.looks_at_photo else 0.0
        return self.budget.fine_tuning_levels + of_photo

    @property
    def surroundings_levels(self) -> float:
        """The budget outside face masks, 8-bit levels."""
        return min(self.budget.surroundings_levels, self.budget.fine_tuning_levels)

    @property
    def reported_encoders(self) -> tuple[EncoderSettings, ...]:
        """The encoders whose cosines a result has: all but the ones that stand beside."""
        return tuple(one for one in self.recognisers if one.role != "beside")

    @property
    def more_likeness_encoders(self) -> tuple[EncoderSettings, ...]:
        """The encoders that stand beside in the likeness loop; none where it is off."""
        more = self.recognisers if self.likeness_leads else ()
        return tuple(one for one in more if one.role == "beside")

    @property
    def encoders(self) -> tuple[EncoderSettings, ...]:
        """All that this method loads."""
        return (*self.reported_encoders, *self.more_likeness_encoders)

    @property
    def encoders_in_loss(self) -> tuple[EncoderSettings, ...]:
        """All that any loss of this method reads."""
        candidates = tuple(one for one in self.encoders if not one.held_out)
        if self.other is not None:
            return candidates[:1] if self.other == "facelock" else ()
        return candidates if self.looks_at_photo or self.likeness_leads else ()

    @model_validator(mode="before")
    @classmethod
    def _name_the_new(cls, values: Any) -> Any:
        if lines := list(former_settings(values)):
            raise ValueError("; ".join(lines))
        return values

    @model_validator(mode="after")
    def _recognisers_with_names_and_a_lead(self) -> "MethodSettings":
        names = [one.name for one in self.recognisers]
        if len(set(names)) != len(names):
            raise ValueError(f"recognisers: names must differ, got {names}")
        reads_any = self.looks_at_photo or self.likeness_leads
        if reads_any and all(one.role != "lead" for one in self.recognisers):
            raise ValueError("recognisers: at least one must have the role lead")
        return self

    @model_validator(mode="after")
    def _one_method(self) -> "MethodSettings":
        if self.other is not None and not self.reads_model:
            raise ValueError(f"{self.other} needs a diffusion checkpoint: against=all")
        if self.other is not None and self.paper is not None:
            raise ValueError(f"paper and other={self.other} are two methods: choose one")
        return self


def parse_change(text: str) -> tuple[list[str], Any]:
    """``key.below=value``, as ``--set`` of every command takes it; the value is YAML.

    Raises:
        ValueError: If there is no key, or the value is no YAML.
    """
    path, separator, value = text.partition("=")
    if not separator or not path.strip():
        raise ValueError(f"{text!r}: expected key=value")
    try:
        return path.strip().split("."), yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ValueError(f"{text!r}: {error}") from None


def put(tree: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Sets one value of a tree of settings, making sections on the way.

    Raises:
        ValueError: If a part of the path is no section.
    """
    *sections, name = path
    for section in sections:
        tree = tree.setdefault(section, {})
        if not isinstance(tree, dict):
            where = ".".join(path)
            if section == "paper":
                raise ValueError(f"{where}: the paper's way is not at work; take preset paper")
            raise ValueError(f"{where}: {section} has no settings below it")
    tree[name] = value


def preset_settings(name: PresetName) -> MethodSettings:
    """The settings of a named preset (method.md, table of presets)."""
    values = _PRESETS.get(name, {"other": name, "loop": _STEPS_OF_OTHERS})
    return MethodSettings.model_validate({"preset": name, **values})


_STEPS_OF_OTHERS = {"num_steps": 100, "step_size_levels": 0.6375}
"""As many steps as Mist and FaceLock take, each Anti-DreamBooth's and our paper's 5e-3 on [-1,
1]."""
_PRESETS: dict[str, dict[str, object]] = {
    "zero-shot": {"against": "zero-shot", "loop": {"num_steps": 80}, "target_cosine": 0.1},
    "fast": {
        "loop": {"num_steps": 18, "finishing_steps": 8},
        "surrogates": {
            "num_epochs": 8,
            "attention_steps": 2,
            "denoising_steps": 3,
            "surrogate_steps": 2,
            "timesteps_per_step": 2,
            "lora_rank": 8,
            "step0_steps": 60,
        },
    },
    "discreet": {"loop": {"num_steps": 60, "finishing_steps": 32, "visibility_jod": 9.6}},
    "balanced": {},
    "strong": {
        "loop": {
            "num_steps": 60,
            "photo_step_every": 3,
            "finishing_steps": 32,
            "visibility_jod": None,
        },
        "target_cosine": 0.1,
    },
    # Steps of sigma_zs = 8e-4 on [0, 1].
    "paper": {
        "paper": {},
        "target_cosine": 0.1,
        "loop": {"num_steps": 400, "step_size_levels": 0.204, "stop_cosine": 0.1},
        "handling": False,
        "recognisers": [{"name": "sface", "kind": "sface"}],
        "surrogates": {
            "adaptation": "full",
            "step0_steps": 400,
            "num_epochs": 50,
            "attention_steps": 3,
            "denoising_steps": 6,
            "surrogate_steps": 3,
            "timesteps_per_step": 1,
        },
    },
}

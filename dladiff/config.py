"""All settings that change the protected bytes, and the presets. Imports no torch.

Budgets and step sizes stand here in 8-bit levels (1 level = 1/255 of the [0, 1] range); the code
converts them once with ``image_values.levels_to_unit``. [P] marks a value of the paper
(arXiv:2511.19910), [X] a choice of ours where it is silent.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

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


class TransformSettings(Settings):
    """What platforms and attackers do to a photo, drawn anew at each step (method.md)."""

    enabled: bool = True
    none_share: Annotated[float, Field(ge=0, le=1)] = 0.30
    """Share of draws without any photometric transform."""
    jpeg_and_half_share: Annotated[float, Field(ge=0, le=1)] = 0.25
    """Share of draws with JPEG and a half-size round trip together; the rest are single ones."""
    jpeg_quality: tuple[int, int] = (60, 95)
    """Range of JPEG qualities, libjpeg scale."""
    blur_sigma_px: tuple[float, float] = (0.3, 1.2)
    noise_sigma_levels: tuple[float, float] = (0.5, 3.0)


class Layer2Settings(Settings):
    """Layer 2: against zero-shot adapters, over an ensemble of identity encoders."""

    enabled: bool = True
    mode: Literal["image", "crop"] = "image"
    """``image``: a grid over the face box, seen through many warps; ``crop``: as the paper, on
    the aligned crop, the perturbation warped back."""
    epsilon_levels: Annotated[float, Field(ge=0, le=64)] = 11.0
    """Budget eta_zs [P]. Raising it protects more and shows more."""
    step_size_levels: Annotated[float, Field(gt=0)] = 0.5
    """Signed step. The paper's sigma_zs = 8e-4 (0.204 levels) reaches its budget after 54 steps;
    steps of half a level reach as much in half the time [X]."""
    num_steps: Annotated[int, Field(ge=1)] = 80
    stop_cosine: float | None = None
    """Stop once every white-box cosine is below; None: all steps run (transfer gains) [X]."""
    target_cosine: float = 0.1
    """Reported as met or not, on the re-read file; th_s of the paper's table."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    crops_per_step: Annotated[int, Field(ge=1, le=8)] = 1
    """Augmented crops whose gradients add up in a step. At equal cost more steps of one crop
    transfer better than fewer steps of two [X, measured]."""
    jitter_px: Annotated[float, Field(ge=0)] = 2.0
    """Random shift of the warp in pixels of the 112 px template [P: jitter]."""
    scale_range: tuple[float, float] = (0.9, 1.1)
    flip: bool = True
    grid_max_cells: Annotated[int, Field(ge=32)] = 256
    """The perturbation of a face lives on a grid of at most this many cells a side."""
    box_scale: Annotated[float, Field(ge=1)] = 1.1
    """Side of the perturbed square relative to the long side of the face box. Raising it shows
    more: 1.3 costs 1.3 dB and moves no unseen encoder further [X, measured]."""
    transforms: TransformSettings = TransformSettings()


class AutoencoderSettings(Settings):
    """One more autoencoder that shall not show the face: other model families have others."""

    checkpoint: str
    """A folder in diffusers format, or a hub id (needs ``revision``): a checkpoint's, whose ``vae``
    is read, or an autoencoder's own. Which to name against which model: docs/models.md."""
    revision: str | None = None
    """Commit hash of a hub checkpoint, so that the bytes stay the same."""
    resolution: Annotated[int, Field(ge=32)] | None = None
    """Side in pixels at which it works; None: as its configuration says."""


class SurrogateSettings(Settings):
    """The diffusion checkpoint and how its surrogates learn."""

    checkpoint: str = "embedded"
    """``embedded``, ``attacker`` (a second model, to measure transfer), a local folder in diffusers
    format, or a hub id (needs ``revision``)."""
    revision: str | None = None
    """Commit hash of a hub checkpoint, so that the bytes stay the same."""
    resolution: Annotated[int, Field(ge=32)] | None = None
    """Side in pixels at which the checkpoint works; None: as its configuration says."""
    prompt: str = "a photo of sks person"
    adaptation: Literal["lora", "full"] = "lora"
    lora_rank: Annotated[int, Field(ge=1)] = 16
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """[X]: the paper gives none, and it is the most sensitive value. None: as calibrated and
    stored beside the checkpoint (``learning_rates.json``), else 1e-4 (LoRA) or 5e-6 (full)."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    step0_steps: Annotated[int, Field(ge=0)] = 200
    """Fine-tuning steps of the static surrogate on the clean photos (Step 0)."""
    batch_size: Annotated[int, Field(ge=1)] = 4
    """Photos per fine-tuning step [P: 4]."""


class LikenessSettings(Settings):
    """L_id: raise ``1 - cos`` of what the autoencoder shows of each face [X] (method.md).

    Where a face is found these steps lead. With layer 2 in mode ``image`` they spend both layers'
    budgets in one loop: steps on what the autoencoder shows, and steps on the photo itself.
    """

    enabled: bool = True
    num_steps: Annotated[int, Field(ge=1)] = 60
    step_size_levels: Annotated[float, Field(gt=0)] = 0.5
    """Mean signed step; it falls linearly from twice to nearly none, so that the last steps
    settle instead of flickering within the budget."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    visibility_jod: Annotated[float, Field(ge=5, le=9.95)] | None = 9.3
    """What each face keeps of its looks, in JOD at twice its size (``face_visibility_jod``; 10: no
    difference is seen). Steps go where they protect most for what they show, and the levels that
    are used follow from the measure, face by face, within the budgets. Raising it shows less and
    protects less. None: signed steps, which use the whole budget [X]."""
    surroundings_levels: Annotated[float, Field(ge=0, le=64)] = 3.0
    """Budget outside face masks, at most layer 1's: what lies around a face tells a model little
    about it and shows first. Inside, both layers' budgets add up."""
    photo_step_every: Annotated[int, Field(ge=2)] = 3
    """Every so many steps one looks at the photo itself, as zero-shot adapters do."""
    finishing_steps: Annotated[int, Field(ge=0)] = 32
    """Afterwards, on the photo alone, by the recognisers that lead and without momentum, for faces
    that still ask for it. Cheap, and what the autoencoder shows stays as it is [X, measured]."""
    stop_cosine: Annotated[float, Field(ge=-1, le=1)] | None = None
    """Stop early, after a few settling steps, once the autoencoder shows no photo of the set with
    a higher cosine than this to any recogniser that leads, on average over ten looks, handled
    ones among them. None: take all steps."""
    photo_target_cosine: float = -0.05
    """Faces whose cosine on the photo is below ask for no more: a surplus would only be seen."""
    mixtures_per_step: Annotated[int, Field(ge=0)] = 2
    """Random convex mixtures of the photos' latents, which a UNet learns from several photos."""
    latent_noise: Annotated[float, Field(ge=0)] = 0.2
    """Standard deviation of noise on the latents before decoding: about the posterior's."""
    view_shares: tuple[float, float, float] = (0.1, 0.1, 0.8)
    """Shares of steps that look at the whole photo, a face square and the aligned face."""
    crop_jitter: Annotated[float, Field(ge=0)] = 0.03
    """Of the face crop within the decoded view, as a share of its side; without any, L_id has no
    gradient at the start."""


class OtherMethodSettings(Settings):
    """A method of another paper in place of ours, within our budgets and masks."""

    name: OtherMethodName | None = None
    """Which one, see ``dladiff.methods.others``; None: ours."""
    num_steps: Annotated[int, Field(ge=1)] = 100
    """Signed steps, as Mist and FaceLock have it."""
    step_size_levels: Annotated[float, Field(gt=0)] = 0.6375
    """Anti-DreamBooth's and our paper's 5e-3 on [-1, 1]."""


class MaskingSettings(Settings):
    """A budget map: less change where the eye would see it."""

    floor_share: Annotated[float, Field(gt=0, le=1)] = 0.35
    """Share of the budget on smooth, bright places such as skin and sky; 1: a flat budget."""
    full_contrast_levels: Annotated[float, Field(gt=0)] = 12.0
    """Local contrast (standard deviation, 8-bit levels) from which the whole budget is used."""


class Layer1Settings(Settings):
    """Layer 1: against fine-tuning, with dual surrogates (DSUR) and ADFT."""

    enabled: bool = True
    epsilon_levels: Annotated[float, Field(ge=0, le=64)] = 7.0
    """Budget eta_ft [P]."""
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
    dual_surrogates: bool = True
    """DSUR. False: no Step 0, K1 = 0 and its steps given to K2."""
    dynamic_fine_tuning: bool = True
    """ADFT. False: K3 = 0, the dynamic surrogate stays the checkpoint."""
    joint_steps: bool = True
    """One forward gives maps and prediction; step on the sum of both normalised gradients, with
    momentum, instead of K1 then K2 steps, which can undo each other [X, measured]."""
    joint_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    dynamic_reset_epochs: Annotated[int, Field(ge=1)] | None = 2
    """Every so many epochs the dynamic surrogate returns to the checkpoint, where attackers
    start [X, measured]; None: never [P]."""
    timestep_choice: Literal["stratified", "uniform", "gradient"] = "stratified"
    """``gradient``: prefer timesteps whose image gradient is large (after SimAC)."""
    include_largest_maps: bool = False
    """Also read attention at the largest resolution that has it (``paper``)."""
    drop_bos: bool = True
    """Drop the BOS column of cross-attention and renormalise [X]."""
    use_views: bool = True
    """Random views of the native photo; False: whole photo, short side to the resolution."""
    views_per_photo: Annotated[int, Field(ge=1)] = 8
    view_shares: tuple[float, float, float] = (0.2, 0.2, 0.6)
    """Shares of whole-photo, face-square and aligned-face views; the last only where the
    checkpoint is made for aligned faces, the last two only where a face was found. More of what
    the checkpoint was trained on measures better [X]."""
    transforms: TransformSettings = TransformSettings()
    likeness: LikenessSettings = LikenessSettings()
    autoencoders: tuple[AutoencoderSettings, ...] = ()
    """More autoencoders in L_id besides the surrogate checkpoint's own, in turns; no UNet is
    needed, so that one photo can stand against several model families."""
    surrogate: SurrogateSettings = SurrogateSettings()


class MethodSettings(Settings):
    """Everything that changes the bytes of a protected photo; its digest names the method."""

    preset: PresetName = "balanced"
    """The preset these values started from; a label."""
    seed: int = 0
    layer1: Layer1Settings = Layer1Settings()
    layer2: Layer2Settings = Layer2Settings()
    recognisers: tuple[EncoderSettings, ...] = (
        EncoderSettings(name="sface", kind="sface"),
        EncoderSettings(name="dlib", kind="dlib_resnet"),
        EncoderSettings(name="plain", kind="student", role="beside"),
        EncoderSettings(name="mobile", kind="student", role="beside"),
    )
    """Networks that tell people apart, each with its role. Two families lead: encoders of one
    family move an encoder of another much less [X, measured]. Two students stand beside them; the
    third, ``convnext``, stays out: it judges."""
    other: OtherMethodSettings = OtherMethodSettings()
    masking: MaskingSettings = MaskingSettings()
    """Where the budgets of the likeness loop, and of other methods, may be used in full."""
    detector: FaceDetectorSettings = FaceDetectorSettings()
    micro_batch: Annotated[int, Field(ge=1)] = 8
    """Images per forward pass; changes rounding in the last bits, hence the digest."""
    threads: Annotated[int, Field(ge=1)] = 1
    """CPU threads of a worker; changes rounding in the last bits, hence the digest. More workers
    beat more threads, which wait for each other where a machine is busy with something else."""
    precision: Literal["auto", "float32", "bfloat16"] = "float32"
    """Of autoencoders and UNets on a GPU; ``bfloat16`` lets all else use TF32. ``auto``: bfloat16.
    Perturbation, adapters and recognisers stay float32; on a CPU all does."""
    keep_metadata: Literal["none", "copyright"] = "none"
    """What of EXIF and XMP survives. GPS and device data never do."""
    max_reference_photos: Annotated[int, Field(ge=0)] = 4
    """Sets smaller than this are filled up with references for Step 0."""

    def changed(self, *changes: str) -> "MethodSettings":
        """These settings with other values, checked like all: ``changed("layer2.num_steps=30")``.

        Args:
            changes: Each ``path=value``, the value in YAML, as ``--set`` takes it.

        Raises:
            ValueError: If a path names no setting or a value is out of its range.
        """
        values: dict[str, Any] = self.model_dump(mode="json")
        for change in changes:
            path, separator, text = change.partition("=")
            if not separator:
                raise ValueError(f"{change!r}: expected path=value")
            *sections, name = path.strip().split(".")
            node = values
            for section in sections:
                node = node.setdefault(section, {})
                if not isinstance(node, dict):
                    raise ValueError(f"{path}: {section} has no settings below it")
            node[name] = yaml.safe_load(text)
        return MethodSettings.model_validate(values)

    @property
    def likeness_leads(self) -> bool:
        """Whether photos with faces go through L_id's loop."""
        is_ours = self.other.name is None
        return is_ours and self.layer1.enabled and self.layer1.likeness.enabled

    @property
    def reported_encoders(self) -> tuple[EncoderSettings, ...]:
        """Those whose cosines a result has: all but the ones that stand beside."""
        return tuple(one for one in self.recognisers if one.role != "beside")

    @property
    def more_likeness_encoders(self) -> tuple[EncoderSettings, ...]:
        """Those that stand beside in the likeness loop; none where it is off."""
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
        if self.other.name is not None:
            return candidates[:1] if self.other.name == "facelock" else ()
        return candidates if self.layer2.enabled or self.likeness_leads else ()

    @model_validator(mode="before")
    @classmethod
    def _name_the_new(cls, values: Any) -> Any:
        lines = [f"{old} is now {new}" for old, new in renamed_in(values)]
        if lines:
            raise ValueError("; ".join(lines))
        return values

    @model_validator(mode="after")
    def _recognisers_with_names_and_a_lead(self) -> "MethodSettings":
        names = [one.name for one in self.recognisers]
        if len(set(names)) != len(names):
            raise ValueError(f"recognisers: names must differ, got {names}")
        reads_any = self.layer2.enabled or self.likeness_leads
        if reads_any and all(one.role != "lead" for one in self.recognisers):
            raise ValueError("recognisers: at least one must have the role lead")
        return self

    @model_validator(mode="after")
    def _one_layer_at_least(self) -> "MethodSettings":
        if not (self.layer1.enabled or self.layer2.enabled):
            raise ValueError("layer1.enabled and layer2.enabled are both false: nothing to do")
        if self.other.name is not None and not self.layer1.enabled:
            raise ValueError(f"{self.other.name} needs a diffusion checkpoint: layer1.enabled=true")
        return self


RENAMED = {
    "layer2.encoders": "recognisers",
    "layer1.likeness.more_encoders": "recognisers, with `role: beside`",
}
"""Settings of before, by path, and where they are now."""


def renamed_in(values: Any) -> Iterator[tuple[str, str]]:
    """The settings of before in a tree of values, each with its new place."""
    for old, new in RENAMED.items():
        *sections, name = old.split(".")
        node = values
        for section in sections:
            node = node.get(section) if isinstance(node, Mapping) else None
        if isinstance(node, Mapping) and name in node:
            yield old, new


def preset_settings(name: PresetName) -> MethodSettings:
    """The settings of a named preset (method.md, table of presets)."""
    values = _PRESETS.get(name, {"other": {"name": name}})
    return MethodSettings.model_validate({"preset": name, **values})


_PRESETS: dict[str, dict[str, object]] = {
    "zero-shot": {"layer1": {"enabled": False}},
    "fast": {
        "layer1": {
            "num_epochs": 8,
            "attention_steps": 2,
            "denoising_steps": 3,
            "surrogate_steps": 2,
            "timesteps_per_step": 2,
            "likeness": {"num_steps": 30, "step_size_levels": 1.0},
            "surrogate": {"lora_rank": 8, "step0_steps": 60},
        },
    },
    "discreet": {"layer1": {"likeness": {"visibility_jod": 9.6}}},
    "balanced": {},
    "strong": {"layer1": {"likeness": {"visibility_jod": None}}},
    "paper": {
        "recognisers": [{"name": "sface", "kind": "sface"}],
        "layer1": {
            "num_epochs": 50,
            "attention_steps": 3,
            "denoising_steps": 6,
            "surrogate_steps": 3,
            "timesteps_per_step": 1,
            "joint_steps": False,
            "dynamic_reset_epochs": None,
            "timestep_choice": "uniform",
            "include_largest_maps": True,
            "drop_bos": False,
            "use_views": False,
            "transforms": {"enabled": False},
            "likeness": {"enabled": False},
            "surrogate": {"adaptation": "full", "step0_steps": 400},
        },
        "layer2": {
            "mode": "crop",
            "stop_cosine": 0.1,
            "num_steps": 400,
            "step_size_levels": 0.204,
            "momentum": 0.0,
            "scale_range": (1.0, 1.0),
            "flip": False,
            "transforms": {"enabled": False},
        },
    },
}

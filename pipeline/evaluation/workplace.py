"""Where cells are done: what a worker is told, and the models of its evaluation, loaded once.

Knows models and photos. Knows no cell, no OUT and no Ray.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from dladiff.accelerator import precision_on
from dladiff.config import EncoderSettings, FaceDetectorSettings
from dladiff.diffusion.checkpoint import DiffusionModel, load_diffusion_model
from dladiff.encoders.identity_encoders import IdentityEncoder, load_identity_encoder
from dladiff.evaluation.attackers_view import Crop, attackers_crop
from dladiff.evaluation.attacks.instantid import load_identity_net
from dladiff.evaluation.attacks.zero_shot import FaceAdapter
from dladiff.evaluation.judges import MIN_FACE_SCORE, Panel
from dladiff.evaluation.remover import Remover, load_remover
from dladiff.evaluation.settings import ViewName
from dladiff.face_detection import FaceDetector, load_face_detector
from dladiff.image_values import Image
from dladiff.results import Face
from pipeline.evaluation.people import PhotoFile
from pipeline.evaluation.settings import EvaluationSettings
from pipeline.images.files import PhotoLimits, decode_photo
from pipeline.storage.store import read_uri


@dataclass(frozen=True)
class Workplace:
    """What a worker is told besides its cell; small, and equal for all of them."""

    out_uri: str
    settings_json: str
    device: str
    threads: int
    weights_cache: str

    @property
    def settings(self) -> EvaluationSettings:
        return EvaluationSettings.model_validate_json(self.settings_json)


class Models:
    """Loaded at first use, and kept: a worker's cells share one evaluation."""

    def __init__(self, workplace: Workplace) -> None:
        self.workplace = workplace
        self.settings = workplace.settings
        self.detector: FaceDetector = load_face_detector(
            FaceDetectorSettings(min_score=MIN_FACE_SCORE)
        )
        self._diffusion: DiffusionModel | None = None
        self._panel: Panel | None = None
        self._adapter: FaceAdapter | None = None
        self._remover: Remover | None = None

    @property
    def diffusion(self) -> DiffusionModel:
        if self._diffusion is None:
            self._diffusion = load_diffusion_model(
                self.settings.surrogate,
                self.workplace.device,
                precision_on(torch.device(self.workplace.device), "auto"),
                accepts_xl=True,
            )
        return self._diffusion

    @property
    def panel(self) -> Panel:
        if self._panel is None:
            judges = [self._encoder(judge) for judge in self.settings.judges]
            self._panel = Panel(self.detector, judges)
        return self._panel

    @property
    def adapter(self) -> FaceAdapter:
        if self._adapter is None:
            clip = self.settings.adapter_clip_encoder
            net = self.settings.adapter_controlnet
            self._adapter = FaceAdapter(
                self.settings.adapter_path,
                self._encoder(self.settings.adapter_encoder),
                None if clip is None else self._encoder(clip),
                has_shortcut=self.settings.adapter_kind == "faceid-plusv2",
                identity_net=None
                if net is None
                else load_identity_net(Path(net), self.workplace.device),
            )
        return self._adapter

    @property
    def remover(self) -> Remover | None:
        """None where no handling needs one."""
        if self._remover is None and self.settings.remover is not None:
            self._remover = load_remover(Path(self.settings.remover), self.workplace.device)
        return self._remover

    def cropped(
        self, photos: Sequence[Image], faces: Sequence[Face | None], view: ViewName
    ) -> list[Crop]:
        """Photos as the checkpoint's square input."""
        diffusion = self.diffusion
        template = None if diffusion.face_template is None else diffusion.face_template.numpy()
        return [
            attackers_crop(photo, face, view, diffusion.resolution, template)
            for photo, face in zip(photos, faces, strict=True)
        ]

    def _encoder(self, settings: EncoderSettings) -> IdentityEncoder:
        return load_identity_encoder(
            settings, self.workplace.device, Path(self.workplace.weights_cache)
        )


@lru_cache(maxsize=1)
def models_of(workplace: Workplace) -> Models:
    """The models of the evaluation that this process works on."""
    return Models(workplace)


def read_photo(photo: PhotoFile) -> Image:
    """Decodes one photo; raises what ``decode_photo`` and ``read_uri`` do."""
    return decode_photo(read_uri(photo.uri), PhotoLimits()).image

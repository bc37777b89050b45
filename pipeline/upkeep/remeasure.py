"""The figures of a manifest row, measured again on another file of the same protected pixels.

Knows the method's measurement. Imports torch and the models only where they are loaded.
"""

from collections.abc import Callable
from dataclasses import asdict, replace

from dladiff.config import MethodSettings
from dladiff.results import IdentityCosine
from dladiff.weight_files import user_cache
from pipeline.images.coding import Coding
from pipeline.images.files import Image
from pipeline.manifest_row import CosineColumn, ManifestRow
from pipeline.worker.result_rows import face_of

Measure = Callable[[ManifestRow, Image, Image, Coding], ManifestRow]
"""The row of a photo with figures of: its clean pixels, those of its file, how that is coded."""


def load_measure(method: MethodSettings) -> Measure:
    """Loads the models that judge a photo, on the CPU.

    Raises:
        ModelError: If weights are missing or damaged.
    """
    import torch

    from dladiff.measurement import largest_change, measure_photo
    from dladiff.models import load_models

    torch.set_num_threads(method.threads)
    models = load_models(method, "cpu", user_cache())

    def measure(row: ManifestRow, clean: Image, shown: Image, coding: Coding) -> ManifestRow:
        faces = [face_of(face) for face in row.faces or ()]
        found = measure_photo(clean, shown, faces, models, method.target_cosine)
        return replace(
            row,
            target_met=found.target_met,
            coded_change_levels=largest_change(coding.read_back(clean), shown, faces)[0],
            changed_pixels=found.changed_pixels,
            psnr_db=found.psnr_db,
            ssim=found.ssim,
            lpips=found.lpips,
            face_visibility_jod=found.face_visibility_jod,
            face_visibility_jod_1x=found.face_visibility_jod_1x,
            identity_cosines=_columns(found.identity_cosines),
            model_likeness=_columns(found.model_likeness),
        )

    return measure


def _columns(cosines: list[IdentityCosine]) -> list[CosineColumn]:
    return [CosineColumn(**asdict(cosine)) for cosine in cosines]

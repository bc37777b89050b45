"""The method on one screen: layer 1, then layer 2, then what was reached.

Jia et al., "DLADiff", arXiv:2511.19910. Knows photos of one person and loaded models; knows no
files, no cluster and no command line.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from dladiff.config import MethodSettings
from dladiff.identity_defense import (
    FacesOfPhoto,
    IdentityDefense,
    add_to_photo,
    defend_identity,
)
from dladiff.image_values import (
    Perturbation,
    image_to_tensor,
    levels_to_unit,
    tensor_to_image,
)
from dladiff.measurement import measure_photo
from dladiff.models import ProtectionModels
from dladiff.photo_sets import Cost, Face, Photo, PhotoResult, SetResult


def protect_photo_set(
    photos: Sequence[Photo],
    references: Sequence[Photo],
    models: ProtectionModels,
    config: MethodSettings,
    on_progress: Callable[[str, float], None] | None = None,
) -> SetResult:
    """Protects the photos of one person.

    ``protected = round8(clip01(clean + delta_ft + delta_zs))``: layer 1 first, layer 2 on top
    (the reverse may wipe out layer 2, section 3 of the paper).

    Args:
        photos: Clean photos to protect, each at its own size.
        references: More clean photos of the same person, read by Step 0 only; never written.
        models: Loaded once per worker on the device that computes.
        config: The method; its digest names the bytes.
        on_progress: Called between steps with a stage name and the fraction done in [0, 1].

    Returns:
        One result per photo in the order given, and the set's measurements and cost.

    Raises:
        GradientError: If an image gradient was zero or not finite: no protection would result.
    """
    report = on_progress or (lambda stage, fraction: None)
    result = SetResult(photos=[])
    delta_ft: list[Perturbation] | None = None

    with _timed(result.cost, "detect"):
        faces = [models.detector.detect(photo.image) for photo in photos]

    # Layer 1 goes here: delta_ft, one perturbation per photo at its own size.

    with _timed(result.cost, "layer2"):
        defense = _defend_identity(photos, faces, delta_ft, models, config, report)
        result.cost.encoder_passes += defense.encoder_passes

    with _timed(result.cost, "measure"):
        for index, photo in enumerate(photos):
            base = None if delta_ft is None else delta_ft[index]
            outcome = _compose(photo, index, base, defense, models, config)
            if outcome.image is not None:
                encoders, target = models.encoders, config.layer2.target_cosine
                measure_photo(outcome, photo.image, models.detector, encoders, models.lpips, target)
            result.photos.append(outcome)
            report("measure", (index + 1) / len(photos))
    return result


def _defend_identity(
    photos: Sequence[Photo],
    faces: Sequence[Sequence[Face]],
    delta_ft: list[Perturbation] | None,
    models: ProtectionModels,
    config: MethodSettings,
    report: Callable[[str, float], None],
) -> IdentityDefense:
    """Layer 2 on top of layer 1; where it is disabled, the faces without perturbations."""
    if not config.layer2.enabled:
        return IdentityDefense(
            faces=[list(found) for found in faces],
            perturbations=[[] for _ in photos],
            stop_reasons=["disabled" for _ in photos],
        )
    return defend_identity(
        [
            FacesOfPhoto(
                key=photo.key,
                clean=photo.image,
                faces=found,
                perturbation=None if delta_ft is None else delta_ft[index],
            )
            for index, (photo, found) in enumerate(zip(photos, faces, strict=True))
        ],
        models.encoders,
        config.layer2,
        seed=config.seed,
        micro_batch=config.micro_batch,
        device=models.device,
        on_progress=lambda fraction: report("layer2", fraction),
    )


def _compose(
    photo: Photo,
    index: int,
    delta_ft: Perturbation | None,
    defense: IdentityDefense,
    models: ProtectionModels,
    config: MethodSettings,
) -> PhotoResult:
    """Adds both layers up, rounds, and says which of the configured layers the photo has."""
    faces = defense.faces[index]
    faceless = config.layer2.enabled and not faces
    if delta_ft is None and faceless:
        return PhotoResult(key=photo.key, status="skipped", reason="no_face")
    protected = add_to_photo(
        image_to_tensor(photo.image, models.device),
        delta_ft,
        defense.perturbations[index],
        levels_to_unit(config.layer2.epsilon_levels),
    )
    return PhotoResult(
        key=photo.key,
        status="layer1_only" if faceless else "protected",
        reason="no_face" if faceless else None,
        image=tensor_to_image(protected),
        faces=faces,
        stop_reason=None if faceless else defense.stop_reasons[index],
    )


@contextmanager
def _timed(cost: Cost, stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    cost.add_seconds(stage, time.perf_counter() - start)

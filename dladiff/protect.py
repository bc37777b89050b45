"""The method on one screen: layer 1, then layer 2, then what was reached.

Jia et al., "DLADiff", arXiv:2511.19910. Knows photos of one person and loaded models; knows no
files, no cluster and no command line.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

from dladiff.config import MethodSettings
from dladiff.image_values import (
    image_to_tensor,
    levels_to_unit,
    tensor_to_image,
)
from dladiff.interplay import reconcile
from dladiff.layer1.adft import FinetuningDefense, open_finetuning_defense
from dladiff.layer1.views import NativePhoto, instance_photo
from dladiff.layer2.identity_defense import (
    FacesOfPhoto,
    IdentityDefense,
    add_to_photo,
    defend_identity,
)
from dladiff.measurement import measure_photo
from dladiff.models import ProtectionModels
from dladiff.results import Cost, Face, Photo, PhotoResult, SetResult
from dladiff.stopwatch import timed


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
    delta_ft: list[NativePhoto] | None = None

    with timed(result.cost, "detect", models.device):
        faces = [models.detector.detect(photo.image) for photo in photos]

    with _layer1(photos, faces, references, models, config, result.cost) as layer1:
        if layer1 is not None:
            outcome = layer1.run(report)
            delta_ft = outcome.perturbations
            outcome.metrics.write_to(result)

        with timed(result.cost, "layer2", models.device):
            defense = _defend_identity(photos, faces, delta_ft, models, config, report)
            result.cost.encoder_passes += defense.encoder_passes

        if layer1 is not None and config.layer2.enabled:
            delta_zs = _delta_zs(photos, delta_ft, defense, models, config)
            interplay = reconcile(layer1, outcome.metrics, delta_zs)
            delta_ft = layer1.native_perturbations()
            interplay.write_to(result)

    with timed(result.cost, "measure", models.device):
        for index, photo in enumerate(photos):
            base = None if delta_ft is None else delta_ft[index]
            protected = _compose(photo, index, base, defense, models, config)
            if protected.image is not None:
                encoders, target = models.encoders, config.layer2.target_cosine
                measure_photo(
                    protected, photo.image, models.detector, encoders, models.lpips, target
                )
            result.photos.append(protected)
            report("measure", (index + 1) / len(photos))
    return result


def _layer1(
    photos: Sequence[Photo],
    faces: Sequence[Sequence[Face]],
    references: Sequence[Photo],
    models: ProtectionModels,
    config: MethodSettings,
    cost: Cost,
) -> AbstractContextManager[FinetuningDefense | None]:
    """Layer 1 with its surrogates, which live as long as the context; None where disabled."""
    if models.diffusion is None or not config.layer1.enabled:
        return nullcontext()
    missing = max(0, config.max_reference_photos - len(photos))
    return open_finetuning_defense(
        photos=[
            instance_photo(photo.key, image_to_tensor(photo.image, models.device), found)
            for photo, found in zip(photos, faces, strict=True)
        ],
        references=[
            instance_photo(
                photo.key,
                image_to_tensor(photo.image, models.device),
                models.detector.detect(photo.image),
            )
            for photo in references[:missing]
        ],
        diffusion=models.diffusion,
        settings=config.layer1,
        seed=config.seed,
        micro_batch=config.micro_batch,
        cost=cost,
    )


def _defend_identity(
    photos: Sequence[Photo],
    faces: Sequence[Sequence[Face]],
    delta_ft: list[NativePhoto] | None,
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
    delta_ft: NativePhoto | None,
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


def _delta_zs(
    photos: Sequence[Photo],
    delta_ft: list[NativePhoto] | None,
    defense: IdentityDefense,
    models: ProtectionModels,
    config: MethodSettings,
) -> list[NativePhoto]:
    """Layer 2's part of each photo, as it acts on top of layer 1's."""
    parts = []
    for index, photo in enumerate(photos):
        clean = image_to_tensor(photo.image, models.device)
        base = clean if delta_ft is None else (clean + delta_ft[index]).clamp(0.0, 1.0)
        epsilon = levels_to_unit(config.layer2.epsilon_levels)
        parts.append(add_to_photo(base, None, defense.perturbations[index], epsilon) - base)
    return parts

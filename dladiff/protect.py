"""The method on one screen: find faces, protect in one loop or in two layers, measure.

Jia et al., "DLADiff", arXiv:2511.19910. Knows photos of one person and loaded models; knows no
files, no cluster and no command line.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from dladiff.budget import budget_map
from dladiff.config import MethodSettings
from dladiff.identities import KnownPhoto, clean_identities
from dladiff.image_values import (
    Images,
    image_to_tensor,
    levels_to_unit,
    tensor_to_image,
)
from dladiff.instances import Instance, InstancePhoto, NativePhoto, instance_photo
from dladiff.interplay import Interplay, reconcile
from dladiff.layer1.adft import FinetuningDefense, Layer1Metrics, open_finetuning_defense
from dladiff.layer1.likeness import AutoencoderLikeness
from dladiff.layer2.face_canvas import FacePerturbation, face_masks, place_face
from dladiff.layer2.identity_defense import FacesOfPhoto, add_to_photo, defend_identity
from dladiff.layer2.photo_likeness import PhotoLikeness
from dladiff.likeness_defense import defend_likeness
from dladiff.measurement import measure_photo
from dladiff.models import ProtectionModels
from dladiff.projected_gradient import GradientAscent
from dladiff.randomness import keyed_generator
from dladiff.results import Cost, Face, Photo, PhotoResult, SetResult
from dladiff.stopwatch import timed

OnProgress = Callable[[str, float], None]
"""Called between steps with a stage name and the fraction done in [0, 1]."""


@dataclass(eq=False)
class _Subject:
    """One photo on its way through the method."""

    photo: Photo
    faces: list[Face]
    """With ``mask_extent`` once layer 2 knows it."""
    instance: Instance | None = None
    """Layer 1's, or both layers' where one loop serves both."""
    added: list[FacePerturbation] = field(default_factory=list)
    """Layer 2's on top, one per face."""
    stop_reason: str | None = None
    by_surrogates: bool = False


@dataclass(frozen=True)
class _Layer1Outcome:
    """What surrogates measured of layer 1, of the set as a whole."""

    metrics: Layer1Metrics | None = None
    interplay: Interplay | None = None


def protect_photo_set(
    photos: Sequence[Photo],
    references: Sequence[Photo],
    models: ProtectionModels,
    config: MethodSettings,
    on_progress: OnProgress | None = None,
) -> SetResult:
    """Protects the photos of one person.

    ``protected = round8(clip01(clean + delta_ft + delta_zs))``. Where layer 1 has L_id and a face
    is found, one loop spends both budgets; else layer 1 comes first and layer 2 on top (the
    reverse may wipe out layer 2, section 3 of the paper).

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
    report, cost = on_progress or (lambda stage, fraction: None), Cost()
    with timed(cost, "detect", models.device):
        subjects = [_Subject(photo, models.detector.detect(photo.image)) for photo in photos]
    leads = config.layer1.enabled and config.layer1.likeness.enabled
    in_one_loop = [subject for subject in subjects if leads and subject.faces]
    in_two_layers = [subject for subject in subjects if subject not in in_one_loop]
    if in_one_loop:
        with timed(cost, "likeness", models.device):
            _protect_in_one_loop(in_one_loop, models, config, cost, report)
    outcome = _protect_in_two_layers(in_two_layers, references, models, config, cost, report)
    with timed(cost, "measure", models.device):
        results = []
        for number, subject in enumerate(subjects, start=1):
            results.append(_result(subject, models, config))
            report("measure", number / len(subjects))
    return _set_result(results, outcome, cost)


def _protect_in_one_loop(
    subjects: Sequence[_Subject],
    models: ProtectionModels,
    config: MethodSettings,
    cost: Cost,
    report: OnProgress,
) -> None:
    """L_id and layer 2's loss on one perturbation per photo, within one budget map."""
    layer1, layer2, likeness = config.layer1, config.layer2, config.layer1.likeness
    face_levels = layer1.epsilon_levels + (layer2.epsilon_levels if layer2.enabled else 0.0)
    encoders = [encoder for encoder in models.encoders if not encoder.held_out]
    identities = clean_identities(
        [subject.photo for subject in subjects],
        [subject.faces for subject in subjects],
        encoders,
        models.device,
    )
    known = []
    for subject, of_photo in zip(subjects, identities, strict=True):
        photo = _grid(subject, models)
        budget = budget_map(
            photo.clean,
            min(likeness.surroundings_levels, layer1.epsilon_levels),
            face_levels,
            face_masks(photo.size, photo.faces, layer2, models.device),
            config.masking,
        )
        generator = keyed_generator(config.seed, photo.key, "likeness", "start")
        start = levels_to_unit(likeness.step_size_levels)
        ascent = GradientAscent.begin(photo.clean, budget, start, generator)
        subject.instance = Instance(photo, ascent)
        subject.stop_reason = "num_steps"
        if layer2.enabled:
            subject.faces = [
                replace(
                    face, mask_extent=place_face(subject.photo.image.shape, face, layer2).extent
                )
                for face in subject.faces
            ]
        known.append(KnownPhoto(subject.instance, of_photo))
    through_model = AutoencoderLikeness(
        models.autoencoders,
        encoders,
        likeness,
        layer1.transforms,
        config.seed,
        config.micro_batch,
        cost,
    )
    on_photo = PhotoLikeness(
        encoders, layer2, likeness.photo_target_cosine, config.seed, config.micro_batch, cost
    )
    defend_likeness(
        known,
        through_model,
        on_photo if layer2.enabled else None,
        likeness,
        lambda fraction: report("likeness", fraction),
    )


def _protect_in_two_layers(
    subjects: Sequence[_Subject],
    references: Sequence[Photo],
    models: ProtectionModels,
    config: MethodSettings,
    cost: Cost,
    report: OnProgress,
) -> _Layer1Outcome:
    """DSUR and ADFT on whole photos, then layer 2 on top of them, as the paper has it."""
    if not subjects:
        return _Layer1Outcome()
    metrics, interplay = None, None
    with _layer1(subjects, references, models, config, cost) as layer1:
        if layer1 is not None:
            metrics = layer1.run(report)
            for subject, instance in zip(subjects, layer1.instances, strict=True):
                subject.instance, subject.by_surrogates = instance, True
        if config.layer2.enabled:
            with timed(cost, "layer2", models.device):
                _add_layer2(subjects, models, config, cost, report)
            if layer1 is not None and metrics is not None:
                for subject, instance in zip(subjects, layer1.instances, strict=True):
                    instance.bear(_delta_zs(subject, models, config))
                interplay = reconcile(layer1, metrics)
    return _Layer1Outcome(metrics, interplay)


@contextmanager
def _layer1(
    subjects: Sequence[_Subject],
    references: Sequence[Photo],
    models: ProtectionModels,
    config: MethodSettings,
    cost: Cost,
) -> Iterator[FinetuningDefense | None]:
    """Layer 1 with its surrogates, which live as long as the context; None where disabled."""
    if models.load_diffusion is None or not config.layer1.enabled:
        yield None
        return
    missing = max(0, config.max_reference_photos - len(subjects))
    others = [_Subject(photo, models.detector.detect(photo.image)) for photo in references]
    with open_finetuning_defense(
        photos=[_grid(subject, models) for subject in subjects],
        references=[_grid(subject, models) for subject in others[:missing]],
        diffusion=models.load_diffusion(),
        settings=config.layer1,
        seed=config.seed,
        micro_batch=config.micro_batch,
        cost=cost,
    ) as layer1:
        yield layer1


def _add_layer2(
    subjects: Sequence[_Subject],
    models: ProtectionModels,
    config: MethodSettings,
    cost: Cost,
    report: OnProgress,
) -> None:
    """Layer 2's perturbations on top of what each photo has."""
    defense = defend_identity(
        [
            FacesOfPhoto(subject.photo.key, subject.photo.image, subject.faces, subject.instance)
            for subject in subjects
        ],
        models.encoders,
        config.layer2,
        seed=config.seed,
        micro_batch=config.micro_batch,
        device=models.device,
        on_progress=lambda fraction: report("layer2", fraction),
    )
    cost.encoder_passes += defense.encoder_passes
    found = zip(subjects, defense.faces, defense.perturbations, defense.stop_reasons, strict=True)
    for subject, faces, added, stop_reason in found:
        subject.faces, subject.added, subject.stop_reason = faces, added, stop_reason


def _grid(subject: _Subject, models: ProtectionModels) -> InstancePhoto:
    """The photo on the grid of its perturbation, on the device."""
    images = image_to_tensor(subject.photo.image, models.device)
    return instance_photo(subject.photo.key, images, subject.faces)


def _delta_zs(subject: _Subject, models: ProtectionModels, config: MethodSettings) -> NativePhoto:
    """Layer 2's part of a photo, as it acts on top of layer 1's."""
    base = _base(subject, models)
    return _with_layer2(subject, base, config) - base


def _base(subject: _Subject, models: ProtectionModels) -> NativePhoto:
    """The photo at its own size with what its instance carries."""
    clean = image_to_tensor(subject.photo.image, models.device)
    if subject.instance is None:
        return clean
    return (clean + subject.instance.native_perturbation()).clamp(0.0, 1.0)


def _with_layer2(subject: _Subject, base: NativePhoto, config: MethodSettings) -> Images:
    return add_to_photo(base, subject.added, levels_to_unit(config.layer2.epsilon_levels))


def _result(subject: _Subject, models: ProtectionModels, config: MethodSettings) -> PhotoResult:
    """Adds everything up, rounds, measures, and says which configured layers the photo has."""
    faceless = config.layer2.enabled and not subject.faces
    if subject.instance is None and faceless:
        return PhotoResult(key=subject.photo.key, status="skipped", reason="no_face")
    image = tensor_to_image(_with_layer2(subject, _base(subject, models), config))
    measured = measure_photo(
        subject.photo.image, image, subject.faces, models, config.layer2.target_cosine
    )
    return PhotoResult(
        key=subject.photo.key,
        status="layer1_only" if faceless else "protected",
        reason="no_face" if faceless else None,
        image=image,
        faces=subject.faces,
        stop_reason=subject.stop_reason if config.layer2.enabled else "disabled",
        has_surrogate_losses=subject.by_surrogates,
        **vars(measured),
    )


def _set_result(results: list[PhotoResult], outcome: _Layer1Outcome, cost: Cost) -> SetResult:
    metrics, interplay = outcome.metrics, outcome.interplay
    if metrics is None:
        return SetResult(photos=results, cost=cost)
    return SetResult(
        photos=results,
        cost=cost,
        learned_fraction=metrics.learned_fraction,
        layer1_stop_reason=metrics.stop_reason,
        attention_loss_before=metrics.losses_before.attention,
        attention_loss_after=metrics.losses_after.attention,
        denoising_loss_before=metrics.losses_before.denoising,
        denoising_loss_after=metrics.losses_after.denoising,
        attention_loss_after_layer2=interplay.losses.attention if interplay else None,
        denoising_loss_after_layer2=interplay.losses.denoising if interplay else None,
    )

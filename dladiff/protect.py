"""The method on one screen: find faces, protect in one loop or in two layers, measure.

Jia et al., "DLADiff", arXiv:2511.19910. Knows photos of one person and loaded models; knows no
files, no cluster and no command line.
"""

from collections.abc import Sequence
from dataclasses import replace

from dladiff.budget import budget_map
from dladiff.config import MethodSettings
from dladiff.identities import FaceIdentity, KnownPhoto, clean_identities
from dladiff.image_values import levels_to_unit, tensor_to_image
from dladiff.instances import Instance
from dladiff.layer1.likeness import AutoencoderLikeness
from dladiff.layer2.photo_likeness import PhotoLikeness
from dladiff.layer2.placement import face_masks, place_face
from dladiff.likeness_defense import PhotoLosses, defend_likeness
from dladiff.measurement import largest_change, measure_photo
from dladiff.methods.paper.two_layers import Layer1Outcome, protect_in_two_layers
from dladiff.models import ProtectionModels
from dladiff.own_losses import WithOwnLosses
from dladiff.projected_gradient import GradientAscent
from dladiff.randomness import keyed_generator
from dladiff.results import Cost, OnProgress, Photo, PhotoResult, SetResult, Status
from dladiff.settings_in_use import refuse_unread
from dladiff.stopwatch import timed
from dladiff.subject import Subject


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
        ValueError: If ``config`` sets, other than its preset, what nothing will read.
    """
    refuse_unread(config)
    report, cost = on_progress or (lambda stage, fraction: None), Cost()
    with timed(cost, "detect", models.device):
        subjects = [Subject.seen_by(models.detector, photo) for photo in photos]
    by_other = subjects if config.other.name is not None else []
    if by_other:
        # Surrogates are imported where they work: that takes seconds, and ours needs none.
        from dladiff.methods.others.protect import protect_by_other_method

        protect_by_other_method(by_other, models, config, cost, report)
    in_one_loop = [subject for subject in subjects if config.likeness_leads and subject.faces]
    elsewhere = (*by_other, *in_one_loop)
    in_two_layers = [subject for subject in subjects if subject not in elsewhere]
    if in_one_loop:
        with timed(cost, "likeness", models.device):
            _protect_in_one_loop(in_one_loop, models, config, cost, report)
    outcome = protect_in_two_layers(in_two_layers, references, models, config, cost, report)
    with timed(cost, "measure", models.device):
        results = []
        for number, subject in enumerate(subjects, start=1):
            results.append(_result(subject, models, config))
            report("measure", number / len(subjects))
    return _set_result(results, outcome, cost)


def _protect_in_one_loop(
    subjects: Sequence[Subject],
    models: ProtectionModels,
    config: MethodSettings,
    cost: Cost,
    report: OnProgress,
) -> None:
    """Takes away the likeness of the person, and of bystanders, whom the clean photos show."""
    identities = clean_identities(
        [subject.photo for subject in subjects],
        [subject.faces for subject in subjects],
        models.likeness_encoders,
        models.device,
    )
    take_likeness_away(subjects, identities, models, config, cost, report)


def take_likeness_away(
    subjects: Sequence[Subject],
    identities: Sequence[Sequence[FaceIdentity]],
    models: ProtectionModels,
    config: MethodSettings,
    cost: Cost,
    report: OnProgress,
) -> None:
    """L_id and layer 2's loss on one perturbation per photo, within one budget map.

    Args:
        subjects: Photos with faces; they get their ``instance``.
        identities: By photo and face, whom these must not look like.
        models: As of ``protect_photo_set``, like the others.
        config: The method, with layer 1's likeness enabled.
        cost: Where passes are counted.
        report: Called with the fraction done.
    """
    layer1, layer2, likeness = config.layer1, config.layer2, config.layer1.likeness
    face_levels = layer1.epsilon_levels + (layer2.epsilon_levels if layer2.enabled else 0.0)
    known = []
    for subject, of_photo in zip(subjects, identities, strict=True):
        photo = subject.grid(models)
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
        models.white_boxes,
        models.more_likeness_encoders,
        likeness,
        layer1.transforms,
        config.seed,
        config.micro_batch,
        cost,
    )
    in_loop, finishing = (
        PhotoLikeness(
            encoders,
            layer2,
            likeness.photo_target_cosine,
            config.seed,
            config.micro_batch,
            cost,
        )
        for encoders in (models.likeness_encoders, models.white_boxes)
    )
    num_steps = defend_likeness(
        known,
        WithOwnLosses(through_model, models.losses) if models.losses else through_model,
        PhotoLosses(in_loop, finishing) if layer2.enabled else None,
        likeness,
        lambda fraction: report("likeness", fraction),
    )
    for subject in subjects:
        subject.stop_reason = "num_steps" if num_steps == likeness.num_steps else "stop_cosine"


def _result(subject: Subject, models: ProtectionModels, config: MethodSettings) -> PhotoResult:
    """Adds everything up, rounds, measures, and says which configured layers the photo has."""
    faceless = config.layer2.enabled and not subject.faces
    if subject.instance is None and faceless:
        key, left_out = subject.photo.key, subject.left_out
        return PhotoResult(key=key, status="skipped", reason="no_face", left_out=left_out)
    image = tensor_to_image(subject.with_layer2(subject.base(models), config))
    clean, read_back = subject.photo.image, subject.photo.read_back
    shown = image if read_back is None else read_back(image)
    target = config.layer2.target_cosine if config.other.name is None else None
    measured = measure_photo(clean, shown, subject.faces, models, target)
    coded = measured.max_change_levels
    if read_back is not None:
        coded = largest_change(read_back(clean), shown, subject.faces)[0]
        largest, outside = largest_change(clean, image, subject.faces)
        measured = replace(
            measured, max_change_levels=largest, max_change_levels_outside_faces=outside
        )
    status, reason = _status(faceless, bool(subject.left_out))
    return PhotoResult(
        key=subject.photo.key,
        status=status,
        reason=reason,
        left_out=subject.left_out,
        image=image,
        faces=subject.faces,
        stop_reason=subject.stop_reason if config.layer2.enabled else "disabled",
        has_surrogate_losses=subject.by_surrogates,
        coded_change_levels=coded,
        **vars(measured),
    )


def _status(faceless: bool, leaves_out: bool) -> tuple[Status, str | None]:
    """What a photo with a perturbation is called, and why it is not plainly ``protected``."""
    if faceless:
        return "layer1_only", "no_face"
    return ("partly_protected", "faces_left_out") if leaves_out else ("protected", None)


def _set_result(results: list[PhotoResult], outcome: Layer1Outcome, cost: Cost) -> SetResult:
    metrics, final = outcome.metrics, outcome.losses_after_layer2
    if metrics is None:
        return SetResult(photos=results, cost=cost)
    return SetResult(
        photos=results,
        cost=cost,
        layer1_stop_reason="all_epochs",
        attention_loss_before=metrics.losses_before.attention,
        attention_loss_after=metrics.losses_after.attention,
        denoising_loss_before=metrics.losses_before.denoising,
        denoising_loss_after=metrics.losses_after.denoising,
        attention_loss_after_layer2=final.attention if final else None,
        denoising_loss_after_layer2=final.denoising if final else None,
    )

"""The method on one screen: find faces, protect in one loop or in two layers, measure.

Jia et al., "DLADiff", arXiv:2511.19910. Knows photos of one person and loaded models; knows no
files, no cluster and no command line.
"""

from collections.abc import Sequence
from dataclasses import replace

from dladiff.budget import budget_map
from dladiff.config import MethodSettings
from dladiff.identities import clean_identities
from dladiff.image_values import levels_to_unit, tensor_to_image
from dladiff.layer1.likeness import AutoencoderLikeness
from dladiff.layer2.photo_likeness import PhotoLikeness
from dladiff.likeness_defense import LikenessSchedule, PhotoLosses, defend_likeness
from dladiff.measurement import largest_change, measure_photo
from dladiff.methods.paper.two_layers import Layer1Outcome, protect_in_two_layers
from dladiff.models import ProtectionModels
from dladiff.own_losses import WithOwnLosses
from dladiff.photo_at_work import PhotoAtWork, place_faces
from dladiff.placement import face_masks
from dladiff.randomness import keyed_generator
from dladiff.results import Cost, OnProgress, Photo, PhotoResult, SetResult, Status
from dladiff.settings_in_use import refuse_unread
from dladiff.stopwatch import timed
from dladiff.visibility_control import VisibilityControl


def protect_photo_set(
    photos: Sequence[Photo],
    references: Sequence[Photo],
    models: ProtectionModels,
    config: MethodSettings,
    on_progress: OnProgress | None = None,
) -> SetResult:
    """Protects the photos of one person.

    ``protected = round8(clip01(clean + delta_ft + delta_zs))``. Where L_id leads and a face
    is found, one loop spends both budgets; else layer 1 comes first and layer 2 on top (the
    reverse may wipe out layer 2, section 3 of the paper).

    Args:
        photos: Clean photos to protect, each at its own size.
        references: More clean photos of the same person, read by Step 0 of the paper's way
            only; never written.
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
        at_work = [PhotoAtWork.seen_by(models.detector, photo, models.device) for photo in photos]
    by_other = at_work if config.other is not None else []
    if by_other:
        # Surrogates are imported where they work: that takes seconds, and ours needs none.
        from dladiff.methods.others.protect import protect_by_other_method

        protect_by_other_method(by_other, models, config, cost, report)
    in_one_loop = [photo for photo in at_work if config.likeness_leads and photo.found]
    elsewhere = (*by_other, *in_one_loop)
    in_two_layers = [photo for photo in at_work if photo not in elsewhere]
    if in_one_loop:
        with timed(cost, "likeness", models.device):
            _protect_in_one_loop(in_one_loop, models, config, cost, report)
    outcome = protect_in_two_layers(in_two_layers, references, models, config, cost, report)
    with timed(cost, "measure", models.device):
        results = []
        for number, photo in enumerate(at_work, start=1):
            results.append(_result(photo, models, config))
            report("measure", number / len(at_work))
    return _set_result(results, outcome, cost)


def _protect_in_one_loop(
    photos: Sequence[PhotoAtWork],
    models: ProtectionModels,
    config: MethodSettings,
    cost: Cost,
    report: OnProgress,
) -> None:
    """Takes away the likeness of the person, and of bystanders, whom the clean photos show."""
    identities = clean_identities(
        [photo.photo for photo in photos],
        [photo.found for photo in photos],
        models.likeness_encoders,
        models.device,
    )
    for photo, of_photo in zip(photos, identities, strict=True):
        photo.identities = of_photo
    take_likeness_away(photos, models, config, cost, report)


def take_likeness_away(
    photos: Sequence[PhotoAtWork],
    models: ProtectionModels,
    config: MethodSettings,
    cost: Cost,
    report: OnProgress,
) -> None:
    """L_id and layer 2's loss on one perturbation per photo, within one budget map.

    Args:
        photos: With faces, and ``identities`` that say whom these must not look like; they get
            their perturbation.
        models: As of ``protect_photo_set``, like the others.
        config: The method, in which L_id leads.
        cost: Where passes are counted.
        report: Called with the fraction done.
    """
    loop, box_scale = config.loop, config.budget.box_scale
    for photo in photos:
        budget = budget_map(
            photo.clean,
            config.surroundings_levels,
            config.face_levels,
            face_masks(photo.size, photo.faces, box_scale, models.device),
            config.budget.floor_share,
        )
        generator = keyed_generator(config.seed, photo.key, "likeness", "start")
        start = levels_to_unit(loop.step_size_levels)
        photo.begin(budget, start, generator)
        if config.looks_at_photo:
            place_faces(photo, box_scale)
    through_model = AutoencoderLikeness(
        models.autoencoders,
        models.white_boxes,
        models.more_likeness_encoders,
        loop.mixtures_per_step,
        config.handling,
        config.seed,
        config.micro_batch,
        cost,
    )
    in_loop, finishing = (
        PhotoLikeness(
            encoders,
            config.handling,
            loop.photo_target_cosine,
            config.seed,
            config.micro_batch,
            cost,
            is_smooth=loop.visibility_jod is not None,
        )
        for encoders in (models.likeness_encoders, models.white_boxes)
    )
    schedule = LikenessSchedule(
        WithOwnLosses(through_model, models.losses) if models.losses else through_model,
        PhotoLosses(in_loop, finishing) if config.looks_at_photo else None,
        loop,
    )
    defend_likeness(
        photos,
        schedule,
        VisibilityControl(photos, loop.visibility_jod),
        lambda fraction: report("likeness", fraction),
    )
    num_steps = schedule.num_taken
    for photo in photos:
        photo.stop_reason = "num_steps" if num_steps == loop.num_steps else "stop_cosine"


def _result(photo: PhotoAtWork, models: ProtectionModels, config: MethodSettings) -> PhotoResult:
    """Adds everything up, rounds, measures, and says which configured layers the photo has."""
    faceless = config.looks_at_photo and not photo.found
    if not photo.has_begun and faceless:
        return PhotoResult(
            key=photo.key, status="skipped", reason="no_face", left_out=photo.left_out
        )
    epsilon = levels_to_unit(config.budget.zero_shot_levels)
    image = tensor_to_image(photo.with_added(photo.perturbed(), epsilon))
    clean, read_back = photo.photo.image, photo.photo.read_back
    shown = image if read_back is None else read_back(image)
    target = config.target_cosine if config.other is None else None
    measured = measure_photo(clean, shown, photo.found, models, target)
    coded = measured.max_change_levels
    if read_back is not None:
        coded = largest_change(read_back(clean), shown, photo.found)[0]
        largest, outside = largest_change(clean, image, photo.found)
        measured = replace(
            measured, max_change_levels=largest, max_change_levels_outside_faces=outside
        )
    status, reason = _status(faceless, bool(photo.left_out))
    return PhotoResult(
        key=photo.key,
        status=status,
        reason=reason,
        left_out=photo.left_out,
        image=image,
        faces=photo.found,
        stop_reason=photo.stop_reason if config.looks_at_photo else "disabled",
        has_surrogate_losses=photo.by_surrogates,
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

"""The method's result of a photo -> one manifest row. Knows both vocabularies, computes nothing."""

from dataclasses import asdict, replace

import numpy as np

from dladiff.config import MethodSettings
from dladiff.results import Face, PhotoResult, SetResult
from pipeline.images.files import DecodedPhoto
from pipeline.manifest_row import (
    PROTECTED_STATUSES,
    CosineColumn,
    FaceColumn,
    LeftOutColumn,
    ManifestRow,
)
from pipeline.reasons import Reason
from pipeline.records import PhotoSet, photo_row
from pipeline.worker.set_inputs import WholePhoto


def result_row(
    photo_set: PhotoSet,
    photo: WholePhoto,
    decoded: DecodedPhoto,
    result: PhotoResult,
    of_set: SetResult,
    method: MethodSettings,
    coding_notes: tuple[str, ...] = (),
) -> ManifestRow:
    """The row of a photo that the method has seen."""
    left_out = [LeftOutColumn(cause, number) for cause, number in result.left_out.items()]
    detail = ", ".join(f"{each.cause} {each.number}" for each in left_out)
    reason = None if result.reason is None else Reason(result.reason, detail)
    row = replace(
        photo_row(photo.source, result.status, photo_set, reason),
        source_sha256=photo.sha256,
        target_met=result.target_met,
        target_cosine=None if result.target_met is None else method.target_cosine,
        stop_reason=result.stop_reason or of_set.layer1_stop_reason,
        width=decoded.image.shape[1],
        height=decoded.image.shape[0],
        source_notes=[*decoded.notes, *(coding_notes if result.image is not None else ())],
        num_faces=len(result.faces),
        faces=[face_column(face) for face in result.faces],
        faces_left_out=left_out,
        max_change_levels=result.max_change_levels,
        coded_change_levels=result.coded_change_levels,
        max_change_levels_outside_faces=result.max_change_levels_outside_faces,
        changed_pixels=result.changed_pixels,
        psnr_db=result.psnr_db,
        ssim=result.ssim,
        lpips=result.lpips,
        face_visibility_jod=result.face_visibility_jod,
        face_visibility_jod_1x=result.face_visibility_jod_1x,
        identity_cosines=[CosineColumn(**asdict(cosine)) for cosine in result.identity_cosines],
        model_likeness=[CosineColumn(**asdict(cosine)) for cosine in result.model_likeness],
    )
    row = _with_budgets(row, method)
    return _with_losses(row, of_set) if result.has_surrogate_losses else row


def _with_budgets(row: ManifestRow, method: MethodSettings) -> ManifestRow:
    """Adds the budgets that were used."""
    has_image = row.status in PROTECTED_STATUSES
    layer1 = method.reads_model and has_image and row.status != "layer2_only"
    layer2 = method.looks_at_photo and has_image and row.status != "layer1_only"
    return replace(
        row,
        epsilon_finetune_levels=method.budget.fine_tuning_levels if layer1 else 0.0,
        epsilon_zeroshot_levels=method.budget.zero_shot_levels if layer2 else 0.0,
    )


def _with_losses(row: ManifestRow, of_set: SetResult) -> ManifestRow:
    """Adds what surrogates measured, of the photos of the set that they worked on."""
    return replace(
        row,
        attention_loss_before=of_set.attention_loss_before,
        attention_loss_after=of_set.attention_loss_after,
        attention_loss_after_layer2=of_set.attention_loss_after_layer2,
        denoising_loss_before=of_set.denoising_loss_before,
        denoising_loss_after=of_set.denoising_loss_after,
        denoising_loss_after_layer2=of_set.denoising_loss_after_layer2,
    )


def face_column(face: Face) -> FaceColumn:
    """A face as the manifest has it."""
    return FaceColumn(
        box=[float(value) for value in face.box],
        landmarks=[float(value) for value in face.landmarks.reshape(-1)],
        score=float(face.score),
        mask_extent=list(face.mask_extent) if face.mask_extent else None,
    )


def face_of(column: FaceColumn) -> Face:
    """A face of the manifest as the method has it."""
    left, top, right, bottom = column.box
    extent = column.mask_extent
    return Face(
        box=(left, top, right, bottom),
        landmarks=np.reshape(np.array(column.landmarks, np.float32), (5, 2)),
        score=column.score,
        mask_extent=(extent[0], extent[1], extent[2], extent[3]) if extent else None,
    )

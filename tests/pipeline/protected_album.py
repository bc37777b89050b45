"""An OUTPUT as a run leaves it, made with the real ledger and fold but without any model."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import OperationSettings
from pipeline.images.coding import Coding
from pipeline.images.files import PhotoLimits, decode_photo
from pipeline.manifest_row import CosineColumn, FaceColumn
from pipeline.output.fold import Fold
from pipeline.output.ledger import Attempt, Ledger
from pipeline.output.runs import finish_run, start_run, write_plan
from pipeline.records import CommitRecord, PhotoSet, SourcePhoto, StagedRow, photo_row
from pipeline.storage.store import open_store
from tests.sample_photos import jpeg_bytes, write_album

FACE_EXTENT = [16, 16, 56, 64]
FACE = FaceColumn(
    box=[20.0, 20.0, 50.0, 60.0],
    landmarks=[25.0, 30.0, 45.0, 30.0, 35.0, 40.0, 27.0, 50.0, 43.0, 50.0],
    score=0.9,
    mask_extent=FACE_EXTENT,
)
EPSILON_LEVELS = 11
LIMITS = PhotoLimits.of(OperationSettings())


class ProtectedAlbum:
    """INPUT with two people of two photos, and an OUTPUT in which a run protected them."""

    def __init__(
        self,
        folder: Path,
        finish: bool = True,
        output_uri: str | None = None,
        photos: Mapping[str, bytes] | None = None,
        record: Mapping[str, Any] | None = None,
    ) -> None:
        """
        Args:
            folder: Where both lie.
            finish: Whether the run came to its end.
            output_uri: Of OUTPUT, where it is no folder beside INPUT.
            photos: Other JPEG files of INPUT, by path.
            record: More of ``run.json``.
        """
        self.record = record or {}
        self.input = write_album(
            folder / "in",
            dict(photos or {})
            or {
                f"{identity}/{number}.jpg": jpeg_bytes(seed=10 * index + number)
                for index, identity in enumerate(("ann", "ben"))
                for number in (1, 2)
            },
        )
        self.output = folder / "out"
        self.store = open_store(output_uri or str(self.output))
        self.photos = [self.source(path) for path in sorted(self.input.rglob("*.jpg"))]
        self.sets = [
            self.photo_set([photo for photo in self.photos if photo.identity == identity])
            for identity in sorted({photo.identity for photo in self.photos})
        ]
        self.run("run-1", self.sets, finish)

    def source(self, path: Path) -> SourcePhoto:
        """The photo as the catalog finds it."""
        info = open_store(str(self.input)).info(path.relative_to(self.input).as_posix())
        assert info is not None
        key = f"images/{path.parent.name}/{path.name}.png"
        return SourcePhoto(path.parent.name, f"file://{path}", key, info.size, info.version)

    @staticmethod
    def photo_set(photos: list[SourcePhoto]) -> PhotoSet:
        text = "".join(photo.uri + photo.version for photo in photos)
        key = hashlib.sha256(text.encode()).hexdigest()
        return PhotoSet(key=key, identity=photos[0].identity, photos=tuple(photos))

    def run(self, run_id: str, sets: list[PhotoSet], finish: bool = True) -> None:
        """Plans and protects sets; ``finish=False`` stops after the first commit."""
        self.begin(run_id, sets)
        for photo_set in sets if finish else sets[:1]:
            self.commit(run_id, photo_set)
        if finish:
            Fold(self.store, run_id)()
            finish_run(self.store, run_id, {"exit_code": 0})

    def begin(self, run_id: str, sets: list[PhotoSet]) -> None:
        start_run(self.store, run_id, {"input": f"file://{self.input}", **self.record})
        write_plan(self.store, run_id, sets)

    def commit(
        self, run_id: str, photo_set: PhotoSet, has_outputs: bool = True, **columns: Any
    ) -> None:
        """Decides one set; ``columns`` go into each row, ``status`` among them."""
        ledger = Ledger(self.store, run_id)
        attempt = ledger.begin(photo_set)
        assert isinstance(attempt, Attempt)
        staged = [
            self._row(ledger, photo_set, photo, attempt.id, index)
            for index, photo in enumerate(photo_set.photos)
        ]
        rows = [replace(each, row=replace(each.row, **columns)) for each in staged]
        if not has_outputs:
            rows = [
                StagedRow(replace(each.row, output_sha256=None), each.output_key) for each in rows
            ]
        ledger.commit(
            CommitRecord(
                set_key=photo_set.key,
                generation=photo_set.generation,
                identity=photo_set.identity,
                run_id=run_id,
                attempt=attempt.id,
                outcome="done",
                rows=rows,
            )
        )

    def _row(
        self, ledger: Ledger, photo_set: PhotoSet, photo: SourcePhoto, attempt: str, index: int
    ) -> StagedRow:
        content = Path(photo.uri.removeprefix("file://")).read_bytes()
        original = decode_photo(content, LIMITS).image
        data = Coding("PNG").encode(perturbed(original))
        key = ledger.staged_key(photo_set.key, attempt, f"{index:03d}.png")
        self.store.write(key, data)
        row = replace(
            photo_row(photo, "protected", photo_set),
            source_sha256=hashlib.sha256(content).hexdigest(),
            output_sha256=hashlib.sha256(data).hexdigest(),
            width=original.shape[1],
            height=original.shape[0],
            num_faces=1,
            faces=[FACE],
            epsilon_finetune_levels=0.0,
            epsilon_zeroshot_levels=float(EPSILON_LEVELS),
            max_change_levels=EPSILON_LEVELS,
            max_change_levels_outside_faces=0,
            psnr_db=38.5,
            ssim=0.97,
            target_met=True,
            identity_cosines=[
                CosineColumn("sface", held_out=False, before=0.99, after=0.05, after_handling=0.2)
            ],
            method_digest="d" * 64,
        )
        return StagedRow(row, photo.output_key, key)

    def output_file(self, name: str) -> Path:
        """E.g. ``ann/1``."""
        return self.output / "images" / f"{name}.jpg.png"

    def rewrite(self, name: str, image: np.ndarray) -> None:
        """Replaces a protected file's pixels."""
        self.output_file(name).write_bytes(Coding("PNG").encode(image))


def perturbed(image: np.ndarray, levels: int = EPSILON_LEVELS) -> np.ndarray:
    """Every pixel inside the mask extent moved by ``levels``, towards mid-grey."""
    left, top, right, bottom = FACE_EXTENT
    changed = image.astype(np.int16)
    face = changed[top:bottom, left:right]
    face += np.where(face < 128, levels, -levels).astype(np.int16)
    return changed.astype(np.uint8)

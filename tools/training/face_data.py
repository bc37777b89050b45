"""The portraits that reference models are trained on: files, split, crops and sample sheets.

Knows where ``faces128``, ``portraits`` and ``lfw12`` lie under one data folder; does not know
any model. Arrays of images are uint8 NHWC; tensors of images are float NCHW in [0, 1].
"""

import csv
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

FACE_SIZE = 128

TEMPLATE_128 = np.array(
    [[0.355, 0.45], [0.645, 0.45], [0.5, 0.61], [0.38, 0.755], [0.62, 0.755]], np.float64
)
"""Left eye, right eye, nose and mouth corners of a ``faces128`` crop, in fractions of its side."""


def is_held_out(identity: str) -> bool:
    """Whether an identity belongs to the 5 % that no training stage may see."""
    return hashlib.sha256(identity.encode()).digest()[0] < 13


@dataclass(frozen=True)
class FaceRecord:
    """One row of ``faces.csv``."""

    file: str
    identity: str
    sex: str
    birth_year: int | None
    tone: str


@dataclass(frozen=True)
class FaceSet:
    """Aligned faces held in memory: ``images`` is uint8 (num_faces, 128, 128, 3), RGB."""

    images: NDArray[np.uint8]
    records: tuple[FaceRecord, ...]

    @property
    def held_out(self) -> NDArray[np.bool_]:
        """One flag per face: its identity is excluded from all training."""
        return np.array([is_held_out(record.identity) for record in self.records])

    @property
    def colour(self) -> NDArray[np.bool_]:
        """One flag per face: the portrait has colour."""
        return np.array([record.tone == "colour" for record in self.records])


def load_faces(data: Path) -> FaceSet:
    """Reads every portrait of ``data/faces128`` in the order of its table."""
    folder = data / "faces128"
    with (folder / "faces.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    records = tuple(
        FaceRecord(
            file=row["file"],
            identity=row["identity"],
            sex=row["sex"],
            birth_year=int(row["birth_year"]) if row["birth_year"] else None,
            tone=row["tone"],
        )
        for row in rows
    )
    images = np.empty((len(records), FACE_SIZE, FACE_SIZE, 3), np.uint8)
    for index, record in enumerate(records):
        with Image.open(folder / record.file) as image:
            images[index] = np.asarray(image.convert("RGB"))
    return FaceSet(images, records)


def to_images(array: NDArray[np.uint8]) -> Tensor:
    """Converts uint8 NHWC to float32 NCHW in [0, 1]."""
    return torch.from_numpy(array).permute(0, 3, 1, 2).float().div_(255)


def save_sheet(images: Tensor, path: Path, *, columns: int = 8) -> None:
    """Writes NCHW images in [0, 1] as one PNG contact sheet, row by row."""
    array = images.detach().float().cpu().clamp(0, 1).mul(255).round().byte()
    count, _, height, width = array.shape
    rows = -(-count // columns)
    sheet = torch.zeros(3, rows * height, columns * width, dtype=torch.uint8)
    for index in range(count):
        top, left = (index // columns) * height, (index % columns) * width
        sheet[:, top : top + height, left : left + width] = array[index]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet.permute(1, 2, 0).numpy()).save(path)

"""Measures every portrait once: landmarks, identity embeddings, attributes for captions.

``python -m tools.training.prepare_portraits --work ../work`` writes ``portraits.npz``: the aligned
crops of ``faces128`` followed by those of ``portraits``, one row each.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from dladiff.config import FaceDetectorSettings
from dladiff.evaluation.attackers_view import warp_photo
from dladiff.face_detection import load_face_detector
from dladiff.faces import ARCFACE_TEMPLATE, estimate_similarity
from tools.training.attributes import measure_attributes
from tools.training.face_alignment import FACES_128, find_face
from tools.training.face_data import FACE_SIZE, load_faces, to_images
from tools.training.recognition import load_sface


def main() -> None:
    """Runs the stage from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.work.mkdir(parents=True, exist_ok=True)

    faces = load_faces(arguments.data)
    by_identity = {record.identity: record for record in faces.records}
    detector = load_face_detector(FaceDetectorSettings())
    crops, recognition_crops, identities, sources = [], [], [], []
    for image, record in zip(faces.images, faces.records, strict=True):
        found = find_face(detector, image)
        # Where the detector is blind (old halftone prints) the crop's own template serves.
        landmarks = found if found is not None else FACES_128
        crops.append(image)
        recognition_crops.append(
            warp_photo(image, estimate_similarity(landmarks, ARCFACE_TEMPLATE), 112)
        )
        identities.append(record.identity)
        sources.append(f"faces128/{record.file}" + ("#undetected" if found is None else ""))
    for path in sorted((arguments.data / "portraits").glob("*/*.jpg")):
        with Image.open(path) as opened:
            image = np.asarray(opened.convert("RGB"))
        found = find_face(detector, image)
        if found is None:
            print(f"no face in {path.name} of {path.parent.name}", flush=True)
            continue
        crops.append(warp_photo(image, estimate_similarity(found, FACES_128), FACE_SIZE))
        recognition_crops.append(
            warp_photo(image, estimate_similarity(found, ARCFACE_TEMPLATE), 112)
        )
        identities.append(path.parent.name)
        sources.append(f"portraits/{path.parent.name}/{path.name}")
    print(f"{len(crops)} crops", flush=True)

    images = np.stack(crops)
    aligned = np.stack(recognition_crops)
    embeddings = embed(aligned)
    records = [by_identity.get(identity) for identity in identities]
    np.savez(
        arguments.work / "portraits.npz",
        images=images,
        recognition_crops=aligned,
        sface=embeddings,
        identity=np.array(identities),
        source=np.array(sources),
        sex=np.array([record.sex if record else "" for record in records]),
        birth_year=np.array(
            [record.birth_year if record and record.birth_year else 0 for record in records]
        ),
        **measure_attributes(images),  # type: ignore[arg-type]  # numpy's stub: allow_pickle
    )


@torch.no_grad()
def embed(aligned: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Returns SFace's unit embeddings of 112x112 crops."""
    encoder = load_sface()
    parts = [
        encoder.embed(to_images(part)) for part in np.array_split(aligned, len(aligned) // 32 + 1)
    ]
    return torch.cat(parts).numpy()


if __name__ == "__main__":
    main()

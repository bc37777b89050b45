"""The mean descriptor of dlib's ResNet over public-domain portraits: what cosines are taken about.

    python -m tools.training.measure_dlib_centre --portraits ../shared/data/portraits

Each person counts once, whatever the number of photos. Writes ``dlib_centre.json``.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dladiff.config import FaceDetectorSettings
from dladiff.encoders.dlib_file import read_dlib_weights
from dladiff.encoders.dlib_resnet import DLIB_SIDE, DLIB_TEMPLATE, DlibResNet
from dladiff.face_detection import load_face_detector
from dladiff.faces import crop_from_photo, warp
from dladiff.image_values import image_to_tensor
from dladiff.weight_files import DLIB_CENTRE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--portraits", type=Path, required=True, help="a folder per person")
    portraits = parser.parse_args().portraits
    detector = load_face_detector(FaceDetectorSettings())
    network = DlibResNet(read_dlib_weights(), torch.zeros(128)).eval()
    means, num_photos = [], 0
    for person in sorted(path for path in portraits.iterdir() if path.is_dir()):
        chips = []
        for file in sorted(person.glob("*.jpg")):
            with Image.open(file) as photo:
                image = np.array(photo.convert("RGB"))
            for face in detector.detect(image)[:1]:
                photo_from_chip = np.linalg.inv(crop_from_photo(face, DLIB_TEMPLATE))
                chips.append(warp(image_to_tensor(image), photo_from_chip, DLIB_SIDE))
        if chips:
            with torch.no_grad():
                means.append(network(torch.cat(chips)).mean(dim=0))
            num_photos += len(chips)
    centre = torch.stack(means).mean(dim=0)
    content = {
        "source": f"mean of {len(means)} people, {num_photos} official portraits of members of the "
        "US Congress (public domain), by tools/training/measure_dlib_centre.py",
        "centre": [round(float(value), 6) for value in centre],
    }
    DLIB_CENTRE.write_text(json.dumps(content, indent=1) + "\n")
    print(f"{DLIB_CENTRE}: {len(means)} people, {num_photos} photos, norm {centre.norm():.3f}")


if __name__ == "__main__":
    main()

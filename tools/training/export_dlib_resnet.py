"""Converts dlib's face ResNet to ``dlib_resnet.safetensors``, which the product reads.

    pip install 'dladiff[training]'
    python -m tools.training.export_dlib_resnet --portraits ../shared/data/portraits

Affine layers are folded into the convolutions before them, weights stored in fp16. Subtracted from
descriptors is their mean over portraits, each person counting once, whatever the number of photos.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from dladiff.config import FaceDetectorSettings
from dladiff.encoders.dlib_resnet import DLIB_SIDE, DLIB_TEMPLATE, DlibResNet
from dladiff.face_detection import load_face_detector
from dladiff.faces import crop_from_photo, warp
from dladiff.image_values import image_to_tensor
from dladiff.weight_files import DLIB_RESNET
from tools.training.dlib_file import Convolution, DlibWeights, dlib_file, read_dlib_weights


def network_of(weights: DlibWeights) -> DlibResNet:
    """dlib's network in fp32; its centre is zero, so it gives dlib's own descriptors."""
    network = DlibResNet()
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    for convolution, stored in zip(convolutions, weights.convolutions, strict=True):
        filters, biases = _folded(stored)
        convolution.load_state_dict({"weight": filters, "bias": biases})
    network.mean.copy_(torch.tensor(weights.input_mean).reshape(1, 3, 1, 1))
    network.projection.copy_(torch.tensor(weights.projection))
    return network.eval().requires_grad_(False)


def stored_state(network: DlibResNet) -> dict[str, Tensor]:
    """What is written: weights in fp16, the few numbers of mean and centre in fp32."""
    exact = ("mean", "centre")
    return {
        name: (value if name in exact else value.half()).contiguous()
        for name, value in network.state_dict().items()
    }


def measure_centre(network: DlibResNet, portraits: Path) -> tuple[Float[Tensor, "128"], int, int]:
    """The mean descriptor of people.

    Args:
        network: With a centre of zero.
        portraits: A folder per person.

    Returns:
        The mean, the numbers of people and of photos that it is taken over.
    """
    detector = load_face_detector(FaceDetectorSettings())
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
            means.append(network(torch.cat(chips)).mean(dim=0))
            num_photos += len(chips)
    return torch.stack(means).mean(dim=0), len(means), num_photos


def main() -> None:
    """Runs the conversion from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--portraits", type=Path, required=True, help="a folder per person")
    parser.add_argument("--output", type=Path, default=DLIB_RESNET)
    arguments = parser.parse_args()
    network = network_of(read_dlib_weights(dlib_file()))
    centre, num_people, num_photos = measure_centre(network, arguments.portraits)
    network.centre.copy_(centre)
    metadata = {
        "source": "dlib_face_recognition_resnet_model_v1 (Davis King), CC0; converted to fp16",
        "centre": f"mean of {num_people} people, {num_photos} official portraits of members of "
        "the US Congress (public domain)",
    }
    save_file(stored_state(network), arguments.output, metadata)
    print(f"{arguments.output}: centre of {num_people} people, {num_photos} photos")


def _folded(stored: Convolution) -> tuple[Tensor, Tensor]:
    """Filters and biases of the convolution with its affine layer inside."""
    gamma = stored.gamma.astype(np.float64)
    filters = stored.filters * gamma[:, None, None, None]
    biases = stored.biases * gamma + stored.beta
    return torch.from_numpy(filters).float(), torch.from_numpy(biases).float()


if __name__ == "__main__":
    main()

"""A zero-shot attacker that reads another recogniser: the package's adapter, told by translation.

``python -m tools.training.translate_adapter NAME=model.onnx OUT --data ../shared/data`` learns on
the training portraits an affine map from the embeddings of one recogniser to SFace's,
which the package's adapter reads, and folds it into the adapter's first layer: an
IP-Adapter-FaceID file (safetensors) for ``dladiff evaluate --attack zero_shot --adapter OUT
--adapter-encoder NAME=model.onnx``. That recognisers see people alike up to such a map is known
(McNeely-White et al. 2021, arXiv:2106.07822). Prints how well held-out people are translated.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from dladiff.encoders.identity_encoders import IdentityEncoder, load_identity_encoder
from dladiff.evaluation.judges import embed_face
from dladiff.results import Face
from pipeline.errors import ConfigurationError
from pipeline.evaluation.settings import REFERENCE_ADAPTER, parse_judge
from tools.training.face_alignment import FACES_128
from tools.training.face_data import FACE_SIZE, FaceSet, load_faces
from tools.training.recognition import load_sface

PENALTIES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
"""Ridge penalties per training face that are tried; held-out people choose."""

Embeddings = Float[Tensor, "faces dim"]


@dataclass(frozen=True, eq=False)
class Translation:
    """``target = source @ weight.T + bias``."""

    weight: Float[Tensor, "target source"]
    bias: Float[Tensor, " target"]

    def __call__(self, source: Float[Tensor, "faces source"]) -> Float[Tensor, "faces target"]:
        return source @ self.weight.T + self.bias


def fit_translation(
    source: Float[Tensor, "faces source"], target: Float[Tensor, "faces target"], penalty: float
) -> Translation:
    """Ridge regression between unit embeddings, scaled so that its answers have unit mean length.

    Args:
        source: What the other recogniser sees of some faces.
        target: What the adapter's own sees of the same.
        penalty: Per face, on the squared weights.
    """
    source, target = source.double(), target.double()
    means = source.mean(dim=0), target.mean(dim=0)
    x, y = source - means[0], target - means[1]
    gram = x.T @ x + penalty * len(x) * torch.eye(x.shape[1], dtype=x.dtype)
    weight = torch.linalg.solve(gram, x.T @ y).T
    bias = means[1] - weight @ means[0]
    length = Translation(weight, bias)(source).norm(dim=1).mean()
    return Translation((weight / length).float(), (bias / length).float())


def likeness_to_own_and_others(translated: Embeddings, target: Embeddings) -> tuple[float, float]:
    """Mean cosine to the same face's embedding, and to the next face's."""
    own = functional.cosine_similarity(translated, target).mean()
    other = functional.cosine_similarity(translated, target.roll(1, dims=0)).mean()
    return float(own), float(other)


def translated_adapter(adapter: dict[str, Tensor], translation: Translation) -> dict[str, Tensor]:
    """An adapter's file with the translation folded into its first layer.

    diffusers takes the hidden width for a multiple of the embedding's, so units that are never
    active fill it up.
    """
    down = "image_proj.proj.0.weight", "image_proj.proj.0.bias"
    up = "image_proj.proj.2.weight"
    first, bias = (adapter[name].float() for name in down)
    width = translation.weight.shape[1]
    fill = -len(first) % width
    changed = {
        down[0]: functional.pad(first @ translation.weight, (0, 0, 0, fill)),
        down[1]: functional.pad(bias + first @ translation.bias, (0, fill)),
        up: functional.pad(adapter[up].float(), (0, fill)),
    }
    return adapter | {name: value.to(adapter[up].dtype) for name, value in changed.items()}


def embed_portraits(encoder: IdentityEncoder, faces: FaceSet) -> Embeddings:
    """Unit embeddings of aligned portraits, by the template's landmarks."""
    side = float(FACE_SIZE)
    face = Face((0.0, 0.0, side, side), FACES_128.astype(np.float32), 1.0)
    return torch.from_numpy(np.stack([embed_face(encoder, one, face) for one in faces.images]))


def main(arguments: list[str] | None = None) -> int:
    """Fits, chooses, writes, and prints what it measured as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("encoder", metavar="NAME[=model.onnx]", help="as `--adapter-encoder`")
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="holds faces128/")
    options = parser.parse_args(arguments)
    try:
        encoder = load_identity_encoder(parse_judge(options.encoder), "cpu")
    except ConfigurationError as error:
        print(f"translate_adapter: {error}", file=sys.stderr)
        return 1
    faces = load_faces(options.data)
    held_out = torch.from_numpy(faces.held_out)
    source, target = (embed_portraits(one, faces) for one in (encoder, load_sface()))
    fits = []
    for penalty in PENALTIES:
        translation = fit_translation(source[~held_out], target[~held_out], penalty)
        own, other = likeness_to_own_and_others(translation(source[held_out]), target[held_out])
        fits.append((own, other, penalty, translation))
    own, other, penalty, translation = max(fits, key=lambda fit: fit[0])
    save_file(translated_adapter(load_file(REFERENCE_ADAPTER), translation), options.out)
    print(
        json.dumps(
            {
                "encoder": encoder.name,
                "penalty": penalty,
                "own_cosine": round(own, 3),
                "other_cosine": round(other, 3),
                "held_out_faces": int(held_out.sum()),
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

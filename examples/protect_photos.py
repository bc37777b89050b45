"""Protects a folder of one person's photos with dladiff as a library, without the pipeline.

    python -m examples.protect_photos photos/ann protected/ann --preset zero-shot

The pipeline (``dladiff protect``) does the same for many people and adds what a service needs:
colour profiles and rotation, resuming, limits, a manifest.
"""

import argparse
from pathlib import Path

from PIL import Image

import dladiff


def protect_folder(
    source: Path, target: Path, protector: dladiff.Protector
) -> list[dladiff.PhotoResult]:
    """Protects the photos of a folder, all of one person, and saves them as PNG.

    Args:
        source: JPEG and PNG files of one person.
        target: Where ``<name>.png`` is written of each photo that could be protected.
        protector: Models and settings; serves many folders.

    Returns:
        What became of each photo, in the order of their names.
    """
    files = sorted(file for file in source.iterdir() if file.suffix in (".jpg", ".jpeg", ".png"))
    result = protector.protect(files)
    target.mkdir(parents=True, exist_ok=True)
    for file, photo in zip(files, result.photos, strict=True):
        if photo.image is not None:
            Image.fromarray(photo.image).save(target / f"{file.name}.png")
    return result.photos


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", type=Path, help="a folder with photos of one person")
    parser.add_argument("target", type=Path)
    parser.add_argument(
        "--preset",
        choices=("zero-shot", "fast", "balanced", "discreet", "strong", "paper"),
        default="zero-shot",
    )
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    protector = dladiff.Protector(arguments.preset, device=arguments.device)
    for photo in protect_folder(arguments.source, arguments.target, protector):
        psnr = "" if photo.psnr_db is None else f", {photo.psnr_db:.1f} dB"
        likeness = "".join(
            f", {cosine.encoder} {cosine.before:.2f} -> {cosine.after:.2f}"
            for cosine in photo.identity_cosines
        )
        print(f"{photo.key}: {photo.status}{psnr}{likeness}")


if __name__ == "__main__":
    main()

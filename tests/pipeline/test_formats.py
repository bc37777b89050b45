"""A folder of all kinds of files from bucket to bucket: names, formats, verify, and nothing inside.

Real are the S3 server, the whole flow and every encoder; the method is a stand-in that moves each
pixel by a few levels and measures itself as the real one does.
"""

import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dladiff.measurement import largest_change
from dladiff.results import Face, Photo, PhotoResult, SetResult
from pipeline.config import OutputFormat, OutputSettings
from pipeline.inspection.verify import verify_output
from pipeline.options import RunOptions
from pipeline.output.manifest import newest_rows
from pipeline.run import run_protection
from pipeline.storage.store import Store
from tests import sample_photos as sample
from tests.pipeline.images.test_colours import FILES, PHOTO
from tests.pipeline.mortal_run import CONFIG, OwnProcess

ENDINGS = {"jpeg": "jpg", "heif": "heic", "tiff": "tif"}
NOT_WRITTEN = ("gif", "tif", "bmp")
TYPES = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp", "heic": "image/heic",
         "avif": "image/avif"}  # fmt: skip
_STARTS = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|RIFF....WEBP|GIF8[79]a|II\*\x00|MM\x00\*", re.DOTALL
)


class ByFewLevels(OwnProcess):
    """Moves each pixel of a photo, which is one face, by up to six levels."""

    def _protect(self, photos: Sequence[Photo], *_: object) -> SetResult:
        self.num_computed += len(photos)
        return SetResult([self._one(photo) for photo in photos])

    @staticmethod
    def _one(photo: Photo) -> PhotoResult:
        height, width = photo.image.shape[:2]
        extent = (0, 0, width, height)
        face = Face(
            (0.0, 0.0, float(width), float(height)), np.zeros((5, 2), np.float32), 0.9, extent
        )
        noise = np.random.default_rng(0).integers(-6, 7, photo.image.shape)
        image = (photo.image + noise).clip(0, 255).astype(np.uint8)
        inside, outside = largest_change(photo.image, image, [face])
        coded = inside
        if photo.read_back is not None:
            coded, _ = largest_change(photo.read_back(photo.image), photo.read_back(image), [face])
        return PhotoResult(
            photo.key,
            "protected",
            image=image,
            faces=[face],
            max_change_levels=inside,
            max_change_levels_outside_faces=outside,
            coded_change_levels=coded,
        )


def all_kinds() -> dict[str, bytes]:
    """Files by their place below INPUT: all ways to say colours, turned and damaged ones."""
    files = {}
    for number, (name, make) in enumerate(FILES.items()):
        kind = name.split(",")[0]
        files[f"ann/2024/{number}.{ENDINGS.get(kind, kind)}"] = make()
    exif = {"exif": sample.exif_bytes(6)}
    whole = sample.encode(PHOTO, "JPEG", **exif)
    for kind in ("PNG", "WEBP", "HEIF", "AVIF"):
        ending = "heic" if kind == "HEIF" else kind.lower()
        files[f"ben/turned.{ending}"] = sample.encode(PHOTO, kind, **exif)
    frames = [Image.fromarray(sample.photo_image(64, 64, seed)) for seed in (1, 2)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "MPO", save_all=True, append_images=frames[1:])
    exif_with_thumbnail = sample.exif_bytes() + sample.jpeg_bytes(48, 48)
    return files | {
        "ben/turned.jpg": whole,
        "ben/turned and unended.jpg": whole[:-2],
        "ben/of a phone.JPG": buffer.getvalue(),
        "ben/with thumbnail.jpg": sample.jpeg_bytes(seed=9, exif=exif_with_thumbnail),
        "ben/with a video.jpg": whole + b"\0\0\0\x18ftypmp42" + bytes(200) + sample.jpeg_bytes(),
        "ben/animation.webp": sample.animation("WEBP"),
        "ben/really a png.jpg": sample.encode(PHOTO, "PNG"),
    }


@pytest.fixture
def bucket(s3_prefix: str) -> tuple[Store, Store, dict[str, bytes]]:
    """INPUT with one file of every kind, OUTPUT beside it, and the files."""
    source, output = Store(s3_prefix + "/in"), Store(s3_prefix + "/out")
    files = all_kinds()
    for name, content in files.items():
        source.write(name, content)
    return source, output, files


def protect(source: Store, output: Store, output_format: OutputFormat = "same") -> None:
    config = CONFIG.model_copy(update={"output": OutputSettings(format=output_format)})
    outcome = run_protection(source.uri, output, config, RunOptions(), pool=ByFewLevels(output))
    assert set(outcome.counts) == {"protected"}


def own_key(name: str) -> str:
    ending = name.rpartition(".")[2]
    return name.replace(" ", "%20") + (".png" if ending in NOT_WRITTEN else "")


def pictures_in(content: bytes) -> Iterator[int]:
    """Where in a file something begins that Pillow opens and decodes."""
    for found in _STARTS.finditer(content):
        try:
            with Image.open(io.BytesIO(content[found.start() :])) as picture:
                picture.load()
        except (OSError, SyntaxError, ValueError):
            continue
        yield found.start()


def test_every_kind_of_file_goes_from_bucket_to_bucket_under_its_own_name(
    bucket: tuple[Store, Store, dict[str, bytes]], s3_client: Any
) -> None:
    source, output, files = bucket
    protect(source, output)
    keys = [info.key.removeprefix("images/") for info in output.list("images/")]
    assert sorted(keys) == sorted(map(own_key, files))
    assert verify_output(output.uri, source.uri).findings == []
    rows = {source.key_of(row.source_uri): row for row in newest_rows(output)}
    name, _, prefix = output.uri.removeprefix("s3://").partition("/")
    for path, original in files.items():
        key = own_key(path)
        content = output.read(f"images/{key}")
        assert list(pictures_in(content)) in ([0], [])  # HEIF and AVIF begin four bytes in
        assert b"SecretPhoneMaker" not in content
        with Image.open(io.BytesIO(content)) as after, Image.open(io.BytesIO(original)) as before:
            held = "JPEG" if before.format == "MPO" else before.format
            assert after.format == ("PNG" if held in ("GIF", "TIFF", "BMP") else held)
            turned = "turned" in path
            assert after.size == (before.size[::-1] if turned else before.size)
            assert getattr(after, "n_frames", 1) == 1
            assert not after.info.get("thumbnails")
        row = rows[path]
        assert (row.output_bytes, row.source_bytes) == (len(content), len(original))
        ending = key.rpartition(".")[2].lower()
        head = s3_client.head_object(Bucket=name, Key=f"{prefix}/images/{key}")
        assert head["ContentType"] == TYPES[ending]
    notes = {path: set(row.source_notes or ()) for path, row in rows.items()}
    assert notes["ben/turned and unended.jpg"] == {"end_marker_missing"}
    assert notes["ben/with a video.jpg"] == {"trailing_bytes_dropped"}
    assert "first_frame" in notes["ben/animation.webp"]


@pytest.mark.parametrize("output_format", ["png", "webp", "jpeg"])
def test_all_of_them_in_one_format(
    tmp_path: Path, local_store: Store, output_format: OutputFormat
) -> None:
    files = all_kinds()
    album = sample.write_album(tmp_path / "in", files)
    protect(Store(str(album)), local_store, output_format)
    assert len([*local_store.list("images/")]) == len(files)
    for info in local_store.list("images/"):
        with Image.open(io.BytesIO(local_store.read(info.key))) as picture:
            assert picture.format == output_format.upper()
    assert verify_output(local_store.uri, str(album)).findings == []

"""Originals and protected files of all kinds side by side in a real browser, which manages colours.

Needs Chromium (Debian: ``apt-get install chromium``). The picture is kept where
``DLADIFF_PICTURE`` says.
"""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.color import deltaE_ciede2000, rgb2lab

from pipeline.storage.store import Store
from tests.pipeline.images.test_colours import FILES
from tests.pipeline.test_formats import all_kinds, own_key, protect
from tests.sample_photos import write_album

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium (Debian: apt-get install chromium)"),
]
SIDE, COLUMNS, GAP = 96, 5, 14
NOT_SHOWN = ("heic", "tif")
"""Formats that Chromium does not show."""
SHOWN_OTHERWISE = {"turned.webp", "turned and unended.jpg"}
"""Chromium does not turn a WebP as its Exif says, and leaves out the last blocks of a JPEG without
its end marker; other viewers and this program do both."""


def place(index: int, column: int) -> tuple[int, int]:
    left = GAP + (index % COLUMNS) * (2 * SIDE + 3 * GAP) + column * (SIDE + 4)
    return left, GAP + (index // COLUMNS) * (SIDE + 34)


def page_of(pairs: list[tuple[str, Path, Path]]) -> str:
    parts = []
    for index, (name, before, after) in enumerate(pairs):
        for column, path in enumerate((before, after)):
            left, top = place(index, column)
            parts.append(
                f'<img src="{path.as_uri()}" style="left:{left}px;top:{top}px" width="{SIDE}" '
                f'height="{SIDE}">'
            )
        left, top = place(index, 0)
        parts.append(f'<p style="left:{left}px;top:{top + SIDE + 2}px">{name}</p>')
    style = "img,p{position:absolute;margin:0}p{font:11px sans-serif;white-space:nowrap}"
    return f"<!doctype html><meta charset=utf-8><style>{style}</style>{''.join(parts)}"


def looked_at(page: Path, picture: Path, width: int, height: int) -> np.ndarray:
    assert CHROMIUM is not None
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += ["--force-color-profile=srgb", "--allow-file-access-from-files"]
    command += [f"--user-data-dir={page.parent / 'browser'}", f"--screenshot={picture}"]
    command += [f"--window-size={width},{height}", page.as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=240)
    with Image.open(picture) as shown:
        return np.asarray(shown.convert("RGB"))


def areas(cell: np.ndarray) -> np.ndarray:
    """CIELAB of small areas: single pixels were changed by the stand-in for the method."""
    lab = rgb2lab(cell)
    return np.asarray(lab.reshape(SIDE // 8, 8, SIDE // 8, 8, 3).mean(axis=(1, 3)))


def test_a_browser_shows_originals_and_protected_files_alike(tmp_path: Path) -> None:
    files = all_kinds()
    album = write_album(tmp_path / "in", files)
    output = Store(str(tmp_path / "out"))
    protect(Store(str(album)), output)
    names = dict(zip([*files], [*FILES, *([""] * (len(files) - len(FILES)))], strict=True))
    pairs = [
        (
            names[path] or path.partition("/")[2],
            album / path,
            tmp_path / "out/images" / own_key(path),
        )
        for path in files
        if path.rpartition(".")[2] not in NOT_SHOWN
    ]
    page, picture = tmp_path / "page.html", tmp_path / "picture.png"
    page.write_text(page_of(pairs))
    width = place(COLUMNS - 1, 1)[0] + SIDE + GAP
    height = place(len(pairs) - 1, 0)[1] + SIDE + 34
    shown = looked_at(page, picture, width, height)
    if "DLADIFF_PICTURE" in os.environ:
        shutil.copy(picture, os.environ["DLADIFF_PICTURE"])
    differences = {}
    for index, (name, _, _) in enumerate(pairs):
        cells = []
        for column in (0, 1):
            left, top = place(index, column)
            cells.append(areas(shown[top : top + SIDE, left : left + SIDE]))
        differences[name] = float(deltaE_ciede2000(*cells).mean())
        assert cells[0].std() > 2, f"{name} is not shown"
    assert {name for name, value in differences.items() if value > 1} <= SHOWN_OTHERWISE

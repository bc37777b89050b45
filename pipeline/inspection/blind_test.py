"""``dladiff report --blind``: can one tell which face is protected, and would one publish it?

Pairs of faces at twice their size, sides drawn at random. Whoever looks answers in the page, which
counts and hands out the scores; nothing leaves the browser. Knows photos and faces.
"""

import base64
import io
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import PIL.Image

from dladiff.visible_difference import MAGNIFICATION, square_around
from pipeline.images.files import Image
from pipeline.inspection.pages import render_page
from pipeline.manifest_row import FaceColumn
from pipeline.worker.result_rows import face_of


@dataclass(frozen=True)
class FacePair:
    """One face before and after, both cut out of photos of one size."""

    original: Image
    protected: Image

    @classmethod
    def of(cls, original: Image, protected: Image, face: FaceColumn) -> "FacePair":
        """The square around a face on which its visibility is measured."""
        part = square_around(face_of(face), *original.shape[:2])
        return cls(original[part], protected[part])


def blind_page(pairs: Sequence[FacePair]) -> str:
    """A page of its own, nothing loaded from elsewhere; each call draws sides and order anew."""
    order = list(range(len(pairs)))
    secrets.SystemRandom().shuffle(order)
    questions = []
    for number in order:
        sides = [pairs[number].original, pairs[number].protected]
        is_left = bool(secrets.randbits(1))
        left, right = (_data_uri(side) for side in (sides[::-1] if is_left else sides))
        questions.append(
            {"left": left, "right": right, "protected": "left" if is_left else "right"}
        )
    return render_page("blind_test.html.j2", questions=questions)


def _data_uri(face: Image) -> str:
    height, width = (round(side * MAGNIFICATION) for side in face.shape[:2])
    shown = PIL.Image.fromarray(face).resize((width, height), PIL.Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    shown.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()

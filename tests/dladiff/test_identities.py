"""Who the person is among several faces, and whom each face must not be like."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from dladiff.encoders.identity_encoders import IdentityEncoder
from dladiff.face_detection import FaceDetector
from dladiff.identities import clean_identities
from dladiff.image_values import Image
from dladiff.results import Face, Photo


@pytest.fixture(scope="module")
def portrait(astronaut: Image) -> Image:
    return np.ascontiguousarray(astronaut[:256, 110:334])


@pytest.fixture(scope="module")
def face(portrait: Image, detector: FaceDetector) -> Face:
    return detector.detect(portrait)[0]


def test_the_person_is_who_is_in_most_photos_even_where_somebody_stands_in_front(
    portrait: Image, face: Face, sface: IdentityEncoder
) -> None:
    upside_down = np.ascontiguousarray(portrait[::-1])
    stranger = Face(face.box, face.landmarks, 0.9)  # other pixels at the same place
    both = np.concatenate([upside_down, portrait], axis=1)
    shifted = Face(
        (face.box[0] + 224, face.box[1], face.box[2] + 224, face.box[3]),
        face.landmarks + np.array([224, 0], np.float32),
        0.9,
    )
    photos = [Photo("a", portrait), Photo("b", both), Photo("c", portrait), Photo("d", portrait)]
    faces = [[face], [stranger, shifted], [face], []]
    alone, together, again, nobody = clean_identities(photos, faces, [sface], "cpu")
    assert [identity.is_person for identity in together] == [False, True]
    assert nobody == []
    bystander, person = together
    assert torch.equal(bystander.target["sface"], bystander.own["sface"])
    seen = [alone[0], person, again[0]]
    mean = functional.normalize(torch.stack([one.own["sface"] for one in seen]).sum(dim=0), dim=1)
    torch.testing.assert_close(person.target["sface"], mean)
    torch.testing.assert_close(alone[0].target["sface"], mean)

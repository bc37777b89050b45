"""Photos that end the process that decodes them are found without ending ours."""

from hashlib import sha256
from pathlib import Path

import pytest

from pipeline.images.files import PhotoLimits
from pipeline.records import ReadPhoto
from pipeline.worker.decode_alone import refuse_deadly_photos
from tests.sample_photos import jpeg_bytes

DEADLY = b"BM ends its decoder"


def read(content: bytes) -> ReadPhoto:
    return ReadPhoto(content, sha256(content).hexdigest())


def test_only_the_photo_that_ends_its_process_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = Path(__file__).parents[2] / "faults/deadly_decoder"
    monkeypatch.setenv("PYTHONPATH", str(decoder))
    good, damaged, missing = read(jpeg_bytes()), read(b"no image"), ReadPhoto(None, None)
    checked = refuse_deadly_photos([good, read(DEADLY), damaged, missing], PhotoLimits(), 60)
    assert (checked[0], *checked[2:]) == (good, damaged, missing)
    assert checked[1].content is None
    assert checked[1].sha256 == sha256(DEADLY).hexdigest()
    assert str(checked[1].reason) == "corrupt: decoding it ends the process"


def test_a_photo_that_is_not_decoded_in_time_is_refused() -> None:
    (checked,) = refuse_deadly_photos([read(jpeg_bytes())], PhotoLimits(), 0.001)
    assert checked.content is None


def test_a_process_that_cannot_start_condemns_no_photo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHOME", "/nonexistent")
    with pytest.raises(RuntimeError, match="cannot try a photo out"):
        refuse_deadly_photos([read(jpeg_bytes())], PhotoLimits(), 60)

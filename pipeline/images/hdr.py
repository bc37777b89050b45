"""Photos of high dynamic range (PQ, HLG) -> sRGB as a viewer on an ordinary screen shows them.

Rows at a time, so that a large photo needs no floats of its whole size.
"""

import numpy as np
from numpy.typing import NDArray

PQ, HLG = 16, 18
"""Transfer characteristics of ITU-T H.273."""
_REFERENCE_WHITE_NITS = 203.0
"""ITU-R BT.2408: what paper white of an HDR photo is shown at."""
_PEAK_NITS = 1000.0
"""Peak of the mastering display where the file names none; Chromium takes the same."""
_ROWS = 256


def tone_map(
    image: NDArray[np.uint8], transfer: int, to_rec709: NDArray[np.float64]
) -> NDArray[np.uint8]:
    """Maps to sRGB by the global curve that Chromium uses (extended Reinhard on the largest value).

    Args:
        image: RGB as coded, uint8 HWC.
        transfer: ``PQ`` or ``HLG``.
        to_rec709: From linear values of the photo's primaries to linear ones of sRGB's.
    """
    levels = np.arange(256) / 255
    linear = _pq_nits(levels) if transfer == PQ else _hlg_scene(levels)
    mapped = np.empty_like(image)
    for top in range(0, len(image), _ROWS):
        light = linear[image[top : top + _ROWS]]
        if transfer == HLG:
            luminance = light @ np.array([0.2627, 0.6780, 0.0593])
            light = light * (_PEAK_NITS * np.maximum(luminance, 1e-6) ** 0.2)[..., None]
        light = (light / _REFERENCE_WHITE_NITS) @ to_rec709.T
        peak = np.maximum(light.max(axis=2, keepdims=True), 1e-6)
        white = _PEAK_NITS / _REFERENCE_WHITE_NITS
        light = np.clip(light * (1 + peak / white**2) / (1 + peak), 0, 1)
        coded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
        mapped[top : top + _ROWS] = np.round(coded * 255)
    return mapped


def _pq_nits(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """SMPTE ST 2084."""
    power = values ** (1 / 78.84375)
    ratio = np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)
    return np.asarray(10000 * ratio ** (1 / 0.1593017578125))


def _hlg_scene(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """ITU-R BT.2100, inverse OETF: scene light in [0, 1]."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(values <= 0.5, values**2 / 3, (np.exp((values - c) / a) + b) / 12)

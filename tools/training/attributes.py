"""What can be measured on an aligned 128x128 face, and the captions that say it.

The measures are simple pixel statistics at fixed places of the ``faces128`` template: crude,
but the same rule labels training portraits and judges generated ones.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

BACKGROUNDS = ("white", "grey", "dark", "blue", "brown", "red")
"""Names of background colours; ``background`` holds an index into them."""


def measure_attributes(images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    """Measures aligned faces.

    Args:
        images: RGB uint8 (num_faces, 128, 128, 3) on the ``faces128`` template.

    Returns:
        One array per measure: ``saturation`` (mean HSV saturation, 0..1; grey portraits are
        near 0), ``background`` (index into :data:`BACKGROUNDS`), ``hair`` (luminance above
        the forehead relative to the cheeks), ``skin`` (luminance of the cheeks, 0..1),
        ``glasses`` (vertical gradient at the bridge and under the eyes), ``beard`` (chin
        darker than cheeks), ``smile`` (brightest decile between the lips against the cheeks).
    """
    rows = [_measure(image) for image in images]
    return {key: np.array([row[key] for row in rows], np.float32) for key in rows[0]}


def _measure(image: NDArray[np.uint8]) -> dict[str, float]:
    values = image.astype(np.float32) / 255
    hsv = cv2.cvtColor(values, cv2.COLOR_RGB2HSV)
    grey = values @ np.array([0.299, 0.587, 0.114], np.float32)
    corners = np.concatenate(
        [values[2:40, 1:14].reshape(-1, 3), values[2:40, -14:-1].reshape(-1, 3)]
    )
    cheeks = float(np.median(np.concatenate([grey[72:86, 36:48], grey[72:86, 80:92]])))
    top = float(np.median(grey[2:14, 44:84]))
    chin = float(np.median(grey[104:114, 54:74]))
    upper_lip = float(np.median(grey[84:91, 54:74]))
    mouth = np.sort(grey[90:104, 50:78].reshape(-1))
    gradient_y = np.abs(cv2.Sobel(grey, cv2.CV_32F, 0, 1, ksize=3))
    bridge = gradient_y[50:64, 60:68].mean()
    rims = np.concatenate([gradient_y[64:74, 38:54], gradient_y[64:74, 74:90]], axis=1).mean()
    return {
        "saturation": float(hsv[..., 1].mean()),
        "background": float(_background(corners)),
        "hair": top / max(cheeks, 0.05),
        "skin": cheeks,
        "glasses": float(bridge + rims) / max(cheeks, 0.05),
        "beard": cheeks - 0.5 * (chin + upper_lip),
        "smile": float(mouth[-len(mouth) // 10 :].mean()) / max(cheeks, 0.05),
    }


def _background(pixels: NDArray[np.float32]) -> int:
    red, green, blue = np.median(pixels, axis=0)
    high, low = max(red, green, blue), min(red, green, blue)
    if high < 0.22:
        return BACKGROUNDS.index("dark")
    if high - low < 0.10 * max(high, 0.3):
        return BACKGROUNDS.index("white" if low > 0.72 else "grey" if high > 0.35 else "dark")
    if blue >= green and blue > red:
        return BACKGROUNDS.index("blue")
    if red - green > 0.25 * red and red - blue > 0.25 * red:
        return BACKGROUNDS.index("red")
    return BACKGROUNDS.index("brown" if red >= blue else "grey")

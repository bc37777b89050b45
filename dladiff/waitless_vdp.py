"""ColorVideoVDP of a pair of images by its authors' package, without waiting for an accelerator.

The package checks values as it goes: whether pixels lie within [0, 1], whether anything is no
number. Each check asks the device for an answer, some thirty times a look. What is left out here
are the checks; values and gradients stay those of ``pycvvdp.cvvdp.predict``, bit by bit on a CPU.
Imported where it is used: that takes seconds.
"""

import json
import logging
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

# It looks for a CUDA compiler, which nothing here needs, and warns where there is none.
_LOUD = logging.getLogger("torch.utils.cpp_extension")
_LEVEL = _LOUD.level
_LOUD.setLevel(logging.ERROR)
try:
    from pycvvdp import cvvdp
    from pycvvdp.csf import castleCSF
    from pycvvdp.cvvdp_metric import cvvdp_frame_buffers, safe_pow
    from pycvvdp.display_model import srgb2lin, vvdp_display_photo_eotf
    from pycvvdp.lpyr_dec import weber_contrast_pyr
    from pycvvdp.video_source import video_source_array
finally:
    _LOUD.setLevel(_LEVEL)

_CHANNELS = 3
"""Of an image: luminance, red-green, yellow-violet."""
_CHANNEL_GAINS = (1.0, 1.45, 1.0)
_LINEAR_BELOW = 0.1
"""Differences from which JODs follow a power."""


class _Display(vvdp_display_photo_eotf):  # type: ignore[misc]  # pycvvdp has no types
    """An sRGB display; pixels beyond [0, 1] are cut off without a word."""

    def __init__(self, checked: vvdp_display_photo_eotf) -> None:
        assert (checked.EOTF, checked.exposure) == ("sRGB", 1), "of another display"
        self.__dict__ = dict(checked.__dict__)

    def forward(self, V: Tensor) -> Tensor:
        black, reflected = self.get_black_level()
        light: Tensor = (self.Y_peak - black) * srgb2lin(V.clamp(0.0, 1.0)) + black + reflected
        return light


class _Pair(video_source_array):  # type: ignore[misc]
    """Two images that nobody looks through for what is no number."""

    def check_if_valid(self, frame: Tensor, target_colorspace: str) -> None:
        """Nothing."""


class _Sensitivity(castleCSF):  # type: ignore[misc]
    """Contrast sensitivity whose curves for a frequency are looked up on the host."""

    def __init__(self, version: str, device: torch.device) -> None:
        super().__init__(csf_version=version, device=device)
        self._on_host = castleCSF(csf_version=version, device=torch.device("cpu"))

    def sensitivity(
        self,
        rho: float,
        omega: int,
        logL_bkg: Tensor,
        cc: int,
        sigma: Tensor,
    ) -> Tensor:
        key = f"o{0 if omega == 0 else 1}_c{cc}_rho{rho}"
        if key not in self.logS_rho:
            self._on_host.sensitivity(rho, omega, self._on_host.log_L_bkg, cc, sigma)
            self.logS_rho[key] = self._on_host.logS_rho[key].to(self.device)
        found: Tensor = super().sensitivity(rho, omega, logL_bkg, cc, sigma)
        return found


class WaitlessVdp(cvvdp):  # type: ignore[misc]
    """The measure of image pairs on a device."""

    lpyr: Any

    def __init__(self, display_name: str, device: torch.device, nearness: float = 1.0) -> None:
        """Ready to look.

        Args:
            display_name: Of the package's displays, an sRGB one.
            device: Where images are.
            nearness: How many times as large things look as from the display's usual distance.
        """
        super().__init__(display_name=display_name, device=device, quiet=True)
        self.display_photometry: Any = _Display(self.display_photometry)
        self.pix_per_deg: float = self.pix_per_deg / nearness
        assert (self.masking_model, self.contrast) == ("mult-mutual", "weber_g1"), self.version

    def load_config(self, config_paths: list[str]) -> None:
        super().load_config(config_paths)
        self.csf = _Sensitivity(_csf_version(self.parameters_file), self.device)

    def jod(
        self, other: Float[Tensor, "1 3 height width"], clean: Float[Tensor, "1 3 height width"]
    ) -> Float[Tensor, ""]:
        """How alike two images in [0, 1] look, at most 10; differentiable."""
        height, width = other.shape[-2:]
        if self.lpyr is None or (width, height) != (self.lpyr.W, self.lpyr.H):
            self.lpyr = weber_contrast_pyr(
                width, height, self.pix_per_deg, self.device, contrast=self.contrast
            )
        pair = _Pair(other, clean, 0, "BCHW", display_photometry=self.display_photometry)
        buffers = cvvdp_frame_buffers()
        read = self.read_block_of_frames(pair, _CHANNELS, buffers, 1, "DKLd65", 0, 1)
        per_channel, _ = self.process_block_of_frames(read, (height, width, 1), 1, self.lpyr, True)
        jod: Tensor = self.do_pooling_and_jods(per_channel)
        return jod.reshape(())

    def apply_masking_model(self, T: Any, R: Any, S: Any) -> Tensor:
        gains = torch.tensor(_CHANNEL_GAINS, device=T.device).view(1, _CHANNELS, 1, 1, 1)
        other, clean = T * S * gains, R * S * gains
        mutual = self.phase_uncertainty(torch.min(torch.abs(other), torch.abs(clean)))
        exponents = self.mask_q[0:_CHANNELS].view(_CHANNELS, 1, 1, 1)
        masking = self.mask_pool(safe_pow(torch.abs(mutual), exponents))
        unmasked = safe_pow(torch.abs(other - clean), self.mask_p)
        difference: Tensor = self.clamp_diffs(unmasked / (1 + masking))
        return difference

    def met2jod(self, Q: Tensor) -> Tensor:
        slope = self.jod_a * (_LINEAR_BELOW ** (self.jod_exp - 1.0))
        power = self.jod_a * (Q.clamp_min(_LINEAR_BELOW) ** self.jod_exp)
        return 10.0 - torch.where(Q <= _LINEAR_BELOW, slope * Q, power)


def _csf_version(parameters_file: str) -> str:
    version: str = json.loads(Path(parameters_file).read_text())["csf"]
    return version

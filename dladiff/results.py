"""What goes into the method and what comes out: photos of one person, and their results.

Plain data on the CPU; the layers and the measurement fill it, the pipeline writes it down.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from dladiff.image_values import Image

Status = Literal["protected", "partly_protected", "layer1_only", "skipped"]
"""``partly_protected``: faces were seen that are not protected; ``layer1_only``: no face was found
for a configured layer 2; ``skipped``: nothing was done."""

LeftOutCause = Literal["too_many", "too_small", "low_score"]
"""Why a face that was seen is not protected: ``detector.max_faces``, ``detector.min_size_px``, or a
score below ``detector.min_score``, which may be a face or not."""

OnProgress = Callable[[str, float], None]
"""Called between steps with a stage name and the fraction done in [0, 1]."""


@dataclass(frozen=True)
class Photo:
    """One decoded photo at its native size."""

    key: str
    """Stable name that keys this photo's noise; never a person's name."""
    image: Image
    """RGB, HWC, uint8, upright (EXIF orientation applied), sRGB."""
    read_back: Callable[[Image], Image] | None = None
    """What a viewer sees of pixels once they are a file; None: the very pixels. The result is
    measured on it."""
    jpeg_quality: int | None = None
    """Quality of the JPEG that loses about as much as that file, on libjpeg's scale: the likeness
    loop works on photos as they will be served. None: nothing is lost."""
    is_grey: bool = False
    """Whether that file holds one channel."""


@dataclass(frozen=True)
class Face:
    """One detected face, in pixels of the native photo."""

    box: tuple[float, float, float, float]
    """Left, top, right, bottom; may reach over the border."""
    landmarks: np.ndarray
    """float32 (5, 2): left eye, right eye, nose, left and right mouth corner, as seen."""
    score: float
    mask_extent: tuple[int, int, int, int] | None = None
    """Left, top, right, bottom (exclusive) outside of which layer 2 changes nothing."""


@dataclass(frozen=True)
class IdentityCosine:
    """Cosine between the identity embeddings of the clean and the protected photo."""

    encoder: str
    held_out: bool
    """True: this encoder only measures and never entered a loss or a stop rule."""
    before: float
    """Clean photo after a JPEG round trip of its own: what "same picture" scores."""
    after: float
    after_handling: float
    """After a half-size resize and JPEG 75, as a platform would leave the photo."""


@dataclass
class Cost:
    """Counted work of a photo set."""

    unet_forward_backward_pairs: int = 0
    unet_forwards: int = 0
    vae_passes: int = 0
    encoder_passes: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall seconds by stage (``step0``, ``layer1``, ``layer2``, ``measure``)."""
    gpu_seconds: float = 0.0
    peak_memory_gb: float = 0.0
    """Peak device memory on CUDA, peak resident memory of the process on CPU."""

    def add_seconds(self, stage: str, seconds: float) -> None:
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds


@dataclass
class PhotoResult:
    """What became of one photo."""

    key: str
    status: Status
    reason: str | None = None
    image: Image | None = None
    """The protected photo, same size as the input; None unless something was protected."""
    faces: list[Face] = field(default_factory=list)
    left_out: dict[LeftOutCause, int] = field(default_factory=dict)
    """Faces that were seen and are not protected, by cause."""
    max_change_levels: int | None = None
    """Before coding, like the one outside faces: what the budgets are about."""
    coded_change_levels: int | None = None
    """Largest change of the file as read back against the clean photo coded the same way."""
    max_change_levels_outside_faces: int | None = None
    changed_pixels: float | None = None
    """Share of pixels with any change, 0..1."""
    psnr_db: float | None = None
    ssim: float | None = None
    lpips: float | None = None
    face_visibility_jod: float | None = None
    """JOD of the face that shows most, at twice its size; None without a face."""
    face_visibility_jod_1x: float | None = None
    """The same at its own size."""
    identity_cosines: list[IdentityCosine] = field(default_factory=list)
    model_likeness: list[IdentityCosine] = field(default_factory=list)
    """The same of what the checkpoint's autoencoder shows: what fine-tuning learns from."""
    target_met: bool | None = None
    """Whether the white-box cosine target of layer 2 was reached on the re-read file."""
    stop_reason: str | None = None
    has_surrogate_losses: bool = False
    """Whether the set's attention and denoising losses are of this photo too."""


@dataclass
class SetResult:
    """What became of a photo set; the losses are of those photos on which surrogates worked."""

    photos: list[PhotoResult]
    layer1_stop_reason: str | None = None
    attention_loss_before: float | None = None
    attention_loss_after: float | None = None
    denoising_loss_before: float | None = None
    denoising_loss_after: float | None = None
    attention_loss_after_layer2: float | None = None
    denoising_loss_after_layer2: float | None = None
    cost: Cost = field(default_factory=Cost)

"""Photos under protection: the clean photo on its grid, and the perturbation that changes.

Knows sizes and grids; both layers work on it. Knows no loss and no model.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from dladiff.faces import rescaled
from dladiff.image_values import Images
from dladiff.projected_gradient import GradientAscent
from dladiff.results import Face
from dladiff.transforms import jpeg, resize_antialiased

NativePhoto = Float[Tensor, "1 3 _ _"]
"""One photo at its own size, or a perturbation of it; photos of a list differ in size."""

MAX_GRID_SIDE = 1536
"""Long side in pixels above which a perturbation lives on a coarser grid than its photo."""


@dataclass(frozen=True, eq=False)
class InstancePhoto:
    """One clean photo of the person on the grid on which its perturbation lives."""

    key: str
    """Keys this photo's draws."""
    clean: Images
    """A batch of one in [0, 1]: the photo itself, or its copy of ``MAX_GRID_SIDE`` pixels."""
    faces: Sequence[Face]
    """In pixels of ``clean``."""
    native_size: tuple[int, int]
    """Height and width of the photo itself."""
    jpeg_quality: int | None = None
    """Of its file, where the grid is the photo's own, so that blocks are the file's."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the grid."""
        height, width = self.clean.shape[-2:]
        return height, width

    def as_served(self, part: NativePhoto) -> NativePhoto:
        """Part of the changed photo, from a corner of whole blocks, as its file will hold it."""
        return part if self.jpeg_quality is None else jpeg(part, self.jpeg_quality)


@dataclass(eq=False)
class Instance:
    """One photo at work: what stays, and the state of its ascent."""

    photo: InstancePhoto
    ascent: GradientAscent
    """The perturbation lives on the photo's grid."""

    @property
    def base(self) -> NativePhoto:
        """What the perturbation is added to: the clean photo, or that with layer 2's share."""
        return self.ascent.clean

    @property
    def perturbation(self) -> NativePhoto:
        """On the photo's grid."""
        return self.ascent.perturbation

    def native_perturbation(self) -> NativePhoto:
        """Carried to the photo's own size."""
        return carry_to_native(self.perturbation, self.photo.native_size)

    def bear(self, fixed: NativePhoto | None) -> None:
        """Makes every loss see another perturbation (at native size) that is not changed.

        Args:
            fixed: E.g. layer 2's; None: none.
        """
        clean = self.photo.clean
        if fixed is not None:
            height, width = clean.shape[-2:]
            clean = (clean + resize_antialiased(fixed, height, width)).clamp(0, 1)
        self.ascent.clean = clean


def instance_photo(
    key: str, images: Images, faces: Sequence[Face], jpeg_quality: int | None = None
) -> InstancePhoto:
    """Puts a photo (a batch of one) on the grid of its perturbation.

    Args:
        key: Keys its draws.
        images: A batch of one, at the photo's own size.
        faces: In its pixels.
        jpeg_quality: Of the file that it will be; None: nothing is lost.

    Raises:
        ValueError: If the batch does not hold exactly one photo.
    """
    if images.shape[0] != 1:
        raise ValueError(f"expected a batch of one photo, got {images.shape[0]}")
    height, width = images.shape[-2:]
    scale = MAX_GRID_SIDE / max(height, width)
    if scale >= 1:
        return InstancePhoto(key, images, tuple(faces), (height, width), jpeg_quality)
    small = resize_antialiased(images, round(height * scale), round(width * scale)).clamp(0, 1)
    return InstancePhoto(
        key, small, tuple(rescaled(face, scale) for face in faces), (height, width)
    )


def carry_to_native(perturbation: NativePhoto, native_size: tuple[int, int]) -> NativePhoto:
    """Carries a perturbation from its grid to the photo's own size, bilinearly.

    Each value becomes a weighted mean of its neighbours, so no bound is exceeded.
    """
    if perturbation.shape[-2:] == native_size:
        return perturbation
    return functional.interpolate(
        perturbation, size=native_size, mode="bilinear", align_corners=False
    )

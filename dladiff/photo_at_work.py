"""A photo at work: the clean photo on its grid, whom it shows, and the perturbation that changes.

Knows sizes and grids, and keeps what stages find. Knows no loss and no model.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from dladiff.face_detection import FaceDetector
from dladiff.faces import rescaled
from dladiff.identities import FaceIdentity
from dladiff.image_values import Images, image_to_tensor, tensor_to_image
from dladiff.placement import FacePerturbation, add_to_photo, place_face
from dladiff.projected_gradient import Budget, GradientAscent
from dladiff.results import Face, LeftOutCause, Photo
from dladiff.transforms import jpeg, resize_antialiased

NativePhoto = Float[Tensor, "1 3 _ _"]
"""One photo at its own size, or a perturbation of it; photos of a list differ in size."""

MAX_GRID_SIDE = 1536
"""Long side in pixels above which a perturbation lives on a coarser grid than its photo."""


@dataclass(eq=False)
class PhotoAtWork:
    """One photo of the person, from its detection to its result; each stage adds to it."""

    photo: Photo
    found: list[Face]
    """Its faces in its own pixels; with ``mask_extent`` once that is known."""
    device: torch.device | str = "cpu"
    left_out: dict[LeftOutCause, int] = field(default_factory=dict)
    """Faces that were seen and are not in ``found``, by cause."""
    identities: Sequence[FaceIdentity] = ()
    """Whom the faces show, one each, once encoders have looked."""
    added: list[FacePerturbation] = field(default_factory=list)
    """What comes on top of the perturbation, one per face, where layer 2 works by itself."""
    stop_reason: str | None = None
    is_content: bool = False
    """Whether no face asks for more: then no loss looks at it again."""
    by_surrogates: bool = False
    """Whether surrogates measured their losses on it."""
    _clean: Images | None = None
    _ascent: GradientAscent | None = None

    @classmethod
    def seen_by(
        cls, detector: FaceDetector, photo: Photo, device: torch.device | str
    ) -> "PhotoAtWork":
        """The photo with the faces that a detector finds in it."""
        seen = detector.find(photo.image)
        return cls(photo, seen.faces, device, seen.left_out)

    @classmethod
    def of_images(cls, key: str, images: Images, faces: Sequence[Face]) -> "PhotoAtWork":
        """A photo given as a batch of one in [0, 1] of any dtype, used as it is.

        Raises:
            ValueError: If the batch does not hold exactly one photo.
        """
        if images.shape[0] != 1:
            raise ValueError(f"expected a batch of one photo, got {images.shape[0]}")
        photo = Photo(key, tensor_to_image(images))
        return cls(photo, list(faces), images.device, _clean=_on_grid(images))

    @property
    def key(self) -> str:
        """Keys this photo's draws."""
        return self.photo.key

    @property
    def native_size(self) -> tuple[int, int]:
        """Height and width of the photo itself."""
        height, width = self.photo.image.shape[:2]
        return height, width

    @property
    def clean(self) -> Images:
        """A batch of one in [0, 1]: the photo itself, or its copy of ``MAX_GRID_SIDE`` pixels."""
        if self._clean is None:
            self._clean = _on_grid(image_to_tensor(self.photo.image, self.device))
        return self._clean

    @cached_property
    def faces(self) -> Sequence[Face]:
        """Its faces in pixels of ``clean``."""
        scale = _grid_scale(self.native_size)
        return tuple(self.found if scale >= 1 else (rescaled(face, scale) for face in self.found))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the grid."""
        height, width = self.clean.shape[-2:]
        return height, width

    @property
    def ascent(self) -> GradientAscent:
        """The state of its perturbation, which lives on the grid; begun before it is asked for."""
        assert self._ascent is not None, "no perturbation has begun"
        return self._ascent

    @property
    def has_begun(self) -> bool:
        """Whether there is a perturbation on the grid."""
        return self._ascent is not None

    def begin(self, budget: Budget, start: float, generator: torch.Generator) -> GradientAscent:
        """Begins the perturbation at noise of at most ``start`` ([0, 1])."""
        self._ascent = GradientAscent.begin(self.clean, budget, start, generator)
        self._ascent.perturbation = self.in_its_channels(self._ascent.perturbation)
        return self._ascent

    @property
    def base(self) -> NativePhoto:
        """What the perturbation is added to: the clean photo, or that with layer 2's share."""
        return self.ascent.clean

    @property
    def perturbation(self) -> NativePhoto:
        """On the grid."""
        return self.ascent.perturbation

    def native_perturbation(self) -> NativePhoto:
        """Carried to the photo's own size."""
        return carry_to_native(self.perturbation, self.native_size)

    def as_served(self, part: NativePhoto) -> NativePhoto:
        """Part of the changed photo, from a corner of whole blocks, as its file will hold it.

        A grid coarser than the photo's own does not have the file's blocks: there it is not coded.
        """
        part = self.in_its_channels(part)
        quality = self.photo.jpeg_quality
        if quality is None or _grid_scale(self.native_size) < 1:
            return part
        return jpeg(part, quality)

    def in_its_channels(self, values: NativePhoto) -> NativePhoto:
        """Three equal channels for a grey photo, whose file has one: what differs would be lost."""
        return values.mean(dim=1, keepdim=True).expand_as(values) if self.photo.is_grey else values

    def perturbed(self) -> NativePhoto:
        """The photo at its own size with its perturbation, but without what is ``added``."""
        clean = image_to_tensor(self.photo.image, self.device)
        if not self.has_begun:
            return clean
        # In place: a photo of 48 megapixels has 0.6 GB, and each copy of it as many.
        return clean.add_(self.native_perturbation()).clamp_(0.0, 1.0)

    def with_added(self, base: NativePhoto, epsilon: float) -> Images:
        """``base`` with what is ``added``, all faces within ``epsilon`` ([0, 1])."""
        return add_to_photo(base, self.added, epsilon) if self.added else base

    def bear(self, fixed: NativePhoto | None) -> None:
        """Makes every loss see another perturbation (at native size) that is not changed.

        Args:
            fixed: E.g. layer 2's; None: none.
        """
        clean = self.clean
        if fixed is not None:
            height, width = clean.shape[-2:]
            clean = (clean + resize_antialiased(fixed, height, width)).clamp(0, 1)
        self.ascent.clean = clean


def place_faces(photo: PhotoAtWork, box_scale: float) -> None:
    """Says of each face outside of which extent nothing is changed for it."""
    photo.found = [
        replace(face, mask_extent=place_face(photo.native_size, face, box_scale).extent)
        for face in photo.found
    ]


def carry_to_native(perturbation: NativePhoto, native_size: tuple[int, int]) -> NativePhoto:
    """Carries a perturbation from its grid to the photo's own size, bilinearly.

    Each value becomes a weighted mean of its neighbours, so no bound is exceeded.
    """
    if perturbation.shape[-2:] == native_size:
        return perturbation
    return functional.interpolate(
        perturbation, size=native_size, mode="bilinear", align_corners=False
    )


def _grid_scale(size: tuple[int, int]) -> float:
    return MAX_GRID_SIDE / max(size)


def _on_grid(images: Images) -> NativePhoto:
    height, width = images.shape[-2:]
    scale = _grid_scale((height, width))
    if scale >= 1:
        return images
    return resize_antialiased(images, round(height * scale), round(width * scale)).clamp(0, 1)

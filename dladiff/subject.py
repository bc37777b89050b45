"""One photo on its way through the method: its faces, and what the layers have added to it."""

from dataclasses import dataclass, field

from dladiff.config import MethodSettings
from dladiff.face_detection import FaceDetector
from dladiff.image_values import Images, image_to_tensor, levels_to_unit
from dladiff.instances import Instance, InstancePhoto, NativePhoto, instance_photo
from dladiff.layer2.placement import FacePerturbation, add_to_photo
from dladiff.models import ProtectionModels
from dladiff.results import Face, LeftOutCause, Photo


@dataclass(eq=False)
class Subject:
    """One photo, changed by each layer in turn."""

    photo: Photo
    faces: list[Face]
    """With ``mask_extent`` once layer 2 knows it."""
    left_out: dict[LeftOutCause, int] = field(default_factory=dict)
    """Faces that were seen and are not in ``faces``, by cause."""
    instance: Instance | None = None
    """Layer 1's, or both layers' where one loop serves both."""
    added: list[FacePerturbation] = field(default_factory=list)
    """Layer 2's on top, one per face."""
    stop_reason: str | None = None
    by_surrogates: bool = False

    @classmethod
    def seen_by(cls, detector: FaceDetector, photo: Photo) -> "Subject":
        """The photo with the faces that a detector finds in it."""
        found = detector.find(photo.image)
        return cls(photo, found.faces, found.left_out)

    def grid(self, models: ProtectionModels) -> InstancePhoto:
        """The photo on the grid of its perturbation, on the device."""
        images = image_to_tensor(self.photo.image, models.device)
        return instance_photo(self.photo.key, images, self.faces, self.photo.jpeg_quality)

    def base(self, models: ProtectionModels) -> NativePhoto:
        """The photo at its own size with what its instance carries."""
        clean = image_to_tensor(self.photo.image, models.device)
        if self.instance is None:
            return clean
        return (clean + self.instance.native_perturbation()).clamp(0.0, 1.0)

    def with_layer2(self, base: NativePhoto, config: MethodSettings) -> Images:
        """What layer 2 makes of a copy of the photo."""
        return add_to_photo(base, self.added, levels_to_unit(config.layer2.epsilon_levels))

"""Hours on GPUs before anything was measured, derived from what passes cost by count."""

from dataclasses import dataclass

from dladiff.accelerator import Precision
from dladiff.config import MethodSettings
from dladiff.errors import ModelError
from pipeline.reporting.words import format_count, format_duration

_OWN = ("embedded", "attacker")
"""Models so small that their passes are the least of a photo's work."""
_MEMORIES_GIB = (10, 16, 24, 80)


@dataclass(frozen=True)
class GpuForecast:
    """What all photos of a plan would take on GPUs of different kinds."""

    tflop_per_photo: float
    """Through autoencoders; recognisers, the visibility measure and files come on top."""
    reached: float
    """Share of the makers' figures that is taken to be reached."""
    hours: dict[str, float]
    """Of one GPU, by kind."""
    images_a_pass: dict[int, int]
    """By GiB of its memory; 0: one, with parts computed once more."""

    def lines(self) -> list[str]:
        """For a person."""
        hours = ", ".join(
            f"{name} {format_duration(of_kind * 3600)}" for name, of_kind in self.hours.items()
        )
        memory = ", ".join(
            f"{gib} GiB {format_count(number, 'image') if number else '1 image, parts of it twice'}"
            for gib, number in self.images_a_pass.items()
        )
        return [
            f"on one GPU  at least {hours}: derived, not measured, from {self.tflop_per_photo:.0f} "
            f"TFLOP per photo through autoencoders at {self.reached:.0%} of the makers' figures; "
            "recognisers and files come on top",
            f"GPU memory  at a time through the largest autoencoder: {memory}",
        ]


def gpu_forecast(method: MethodSettings, num_photos: int) -> GpuForecast | None:
    """Counts a method's steps; None where it names no published autoencoder to count.

    Args:
        method: Counted where L_id leads.
        num_photos: To do.
    """
    named = [one for one in (method.model, *method.autoencoders) if one.checkpoint not in _OWN]
    if not method.likeness_leads or not named:
        return None
    # Imported where it counts: that takes seconds, and most plans need none.
    from dladiff.layer1.counted_cost import REACHED, count_steps, gpu_seconds

    precision: Precision = "float32" if method.precision == "float32" else "bfloat16"
    try:
        counted = count_steps(
            (method.model, *method.autoencoders), method.loop, precision, _MEMORIES_GIB
        )
    except ModelError:
        return None  # A run says what is wrong with it; a plan loads no model.
    seconds = gpu_seconds(counted.tflop)
    hours = {name: num_photos * each / 3600 for name, each in seconds.items()}
    return GpuForecast(counted.tflop, REACHED, hours, counted.images_a_pass)

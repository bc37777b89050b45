"""What layer 2 leaves of layer 1, and a short repair where it takes too much.

Layer 2 is added on top of layer 1 (section 3 of the paper). Knows layer 1 at work and its losses;
knows no identity encoder.
"""

from dladiff.methods.paper.adft import FinetuningDefense, Layer1Metrics
from dladiff.methods.surrogate_losses import Layer1Losses
from dladiff.stopwatch import timed

MAX_LOST_GAIN = 0.1
"""Share of a loss's gain that layer 2 may take before layer 1 is repaired [X]."""
REPAIR_EPOCHS = 2


def reconcile(layer1: FinetuningDefense, metrics: Layer1Metrics) -> Layer1Losses:
    """Measures layer 1 under layer 2; one short ADFT round if over 10 % of a gain is gone.

    What the instances bear stays as it is, in the repair too, and so does theta_d, or the losses
    before and after could not be compared [X]: only ``layer1``'s perturbations change.

    Args:
        layer1: Still open, with its surrogates; its instances bear layer 2's perturbations.
        metrics: Its losses on the clean photos and on those with delta_ft alone.

    Returns:
        The losses of the photos as they end up.
    """
    with timed(layer1.cost, "interplay", layer1.diffusion.device):
        losses = layer1.measure(perturbed=True)
        if not _lost_too_much(metrics.losses_before, metrics.losses_after, losses):
            return losses
        for _ in range(REPAIR_EPOCHS):
            layer1.alternate(train=False)
        return layer1.measure(perturbed=True)


def _lost_too_much(before: Layer1Losses, alone: Layer1Losses, both: Layer1Losses) -> bool:
    """Whether either loss keeps less than nine tenths of what layer 1 alone had gained."""
    pairs = [
        (alone.attention - before.attention, both.attention - before.attention),
        (alone.denoising - before.denoising, both.denoising - before.denoising),
    ]
    return any(gain > 0 and kept < (1 - MAX_LOST_GAIN) * gain for gain, kept in pairs)

"""The probe: how much of the clean photos could an attacker still learn from the protected ones?

Knows latents, a fresh LoRA and the denoising loss. It samples no image and finds no face; a
min-max loss of the defence itself would prove nothing.
"""

from jaxtyping import Float
from torch import Tensor

from dladiff.config import ProbeSettings, SurrogateSettings
from dladiff.diffusion.autoencoder import Latents
from dladiff.diffusion.checkpoint import DiffusionModel
from dladiff.diffusion.denoising_loss import Predict, evaluation_pairs, mean_denoising_loss
from dladiff.diffusion.fine_tuning import FineTuner
from dladiff.diffusion.surrogates import Surrogates
from dladiff.randomness import keyed_generator
from dladiff.results import Cost


class Probe:
    """Fine-tunes a fresh LoRA and measures its loss on the clean photos [X].

    ``learned_fraction = (L_pre - L_probe(protected)) / (L_pre - L_probe(clean))``: 1 where the
    protected photos teach as much as the clean ones, 0 where they teach nothing, below 0 where
    they make things worse.
    """

    def __init__(
        self,
        surrogates: Surrogates,
        diffusion: DiffusionModel,
        clean_latents: Latents,
        surrogate_settings: SurrogateSettings,
        settings: ProbeSettings,
        seed: int,
        micro_batch: int,
        cost: Cost,
    ) -> None:
        """Measures what the checkpoint and a probe of the clean photos reach.

        Args:
            surrogates: With a surrogate called ``probe``.
            diffusion: The checkpoint.
            clean_latents: The clean photos as an attacker would see them.
            surrogate_settings: Batch size, weight decay and clipping of the training.
            settings: Steps, learning rate and evaluation pairs.
            seed: The probe's own; every probe starts and draws alike.
            micro_batch: Rows per forward.
            cost: Where passes are counted.
        """
        self._diffusion = diffusion
        self._clean_latents = clean_latents
        self._settings = settings
        self._seed = seed
        self._micro_batch = micro_batch
        self._cost = cost
        lora = {"adaptation": "lora", "learning_rate": settings.learning_rate}
        self._tuner = FineTuner(
            surrogates["probe"], diffusion, surrogate_settings.model_copy(update=lora), cost
        )
        self.loss_of_checkpoint = float(self._loss(surrogates.predict_pretrained))
        self.loss_after_clean = self.loss_after(clean_latents)

    def loss_after(self, latents: Latents) -> float:
        """The loss on the clean photos of a fresh LoRA trained on ``latents``."""
        self._tuner.reset()
        generator = keyed_generator(self._seed, "probe", "train")
        self._tuner.train(latents, self._settings.num_steps, generator)
        loss = float(self._loss(self._tuner.surrogate.predict))
        self._tuner.reset()
        return loss

    def learned_fraction(self, protected_latents: Latents) -> float | None:
        """The share of the clean photos' lesson that the protected ones still teach.

        None where even the clean photos taught nothing: then nothing can be said.
        """
        lesson = self.loss_of_checkpoint - self.loss_after_clean
        if not lesson > 1e-6 * self.loss_of_checkpoint:
            return None
        return (self.loss_of_checkpoint - self.loss_after(protected_latents)) / lesson

    def _loss(self, predict: Predict) -> Float[Tensor, ""]:
        timesteps, noise = evaluation_pairs(
            len(self._clean_latents), self._settings.num_eval_pairs, self._diffusion, self._seed
        )
        latents = self._clean_latents.repeat_interleave(self._settings.num_eval_pairs, dim=0)
        self._cost.unet_forwards += len(latents)
        return mean_denoising_loss(
            predict, latents, timesteps, noise, self._diffusion, self._micro_batch
        )


class StopRule:
    """Stops below a target, or when two checks in a row gain less than a little."""

    def __init__(self, settings: ProbeSettings) -> None:
        self._settings = settings
        self._checks: list[float] = []

    def reason_to_stop(self, learned_fraction: float | None) -> str | None:
        """Takes in one check; says why to stop, or None to go on."""
        if learned_fraction is None:
            return None
        if learned_fraction < self._settings.target_learned_fraction:
            return "target_reached"
        self._checks.append(learned_fraction)
        gains = [a - b for a, b in zip(self._checks[:-1], self._checks[1:], strict=True)]
        if len(gains) >= 2 and max(gains[-2:]) < self._settings.min_gain:
            return "no_gain"
        return None

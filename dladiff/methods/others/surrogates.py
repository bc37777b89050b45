"""Baselines that raise the denoising loss of a UNet: AdvDM, FSMG, ASPL, CAAT, MetaCloak-style.

Of each the paper and what it trains when. None has the prior term, as our own surrogates.
"""

from dataclasses import replace

import torch
from torch import Tensor

from dladiff.diffusion.attention_maps import AttentionReader, attention_layers
from dladiff.diffusion.fine_tuning import FineTuner
from dladiff.diffusion.surrogates import FullSurrogate, Surrogate
from dladiff.methods.image_gradients import LatentGradient
from dladiff.methods.others.baseline import LatentBaseline
from dladiff.methods.others.person import Person
from dladiff.methods.surrogate_losses import SurrogateLosses
from dladiff.randomness import keyed_generator


class AdvDm(LatentBaseline):
    """Raises L_den of the checkpoint as it is.

    Liang et al. 2023, "Adversarial Example Does Good" (arXiv:2302.04578), Algorithm 1:
    ``max_delta E_(t, e) L_den(theta_pre, E(x + delta), t, e)``, a new (t, e) at each step.
    """

    def __init__(self, person: Person) -> None:
        super().__init__(person)
        self.surrogate: Surrogate = FullSurrogate(person.diffusion)
        """Whose loss is raised."""

    def latent_gradient(self, step: int) -> LatentGradient:
        return self.losses(self.surrogate).denoising_gradient

    def losses(self, surrogate: Surrogate) -> SurrogateLosses:
        """L_den of a surrogate; attention maps are not read."""
        diffusion = self.person.diffusion
        side = diffusion.resolution // diffusion.vae_scale_factor
        reader = AttentionReader(diffusion.unet, attention_layers(diffusion.unet, side))
        return SurrogateLosses(None, surrogate, reader, diffusion, self.person.cost)

    def tuner(self, surrogate: Surrogate) -> FineTuner:
        """A fresh optimiser that lowers L_den of a surrogate; counted."""
        person = self.person
        return FineTuner(surrogate, person.diffusion, person.surrogates, person.cost)

    def draws(self, *names: str | int) -> torch.Generator:
        """For one call of a tuner."""
        return keyed_generator(self.person.settings.seed, type(self).__name__, *names)


class Fsmg(AdvDm):
    """Raises L_den of a surrogate that was fully trained on the clean photos and then stays.

    Van Le et al. 2023, "Anti-DreamBooth" (arXiv:2303.15433), section 4.3, Fully-trained Surrogate
    Model Guidance: ``max_delta L_den(theta_clean, E(x + delta))``. Training takes
    ``step0_steps``.
    """

    def prepare(self) -> None:
        tuner, latents = self.tuner(self.surrogate), self.person.clean_latents
        for done in range(self.person.surrogates.step0_steps):
            tuner.train(latents, 1, self.draws(done))


class Aspl(AdvDm):
    """Alternating Surrogate and Perturbation Learning.

    Van Le et al. 2023 (arXiv:2303.15433), section 4.3: in each round (1) a copy of the surrogate
    trains on the clean photos, (2) the perturbation raises L_den of that copy, (3) the surrogate
    itself trains on the perturbed photos. The numbers of steps are those of the authors' script.
    """

    clean_steps, ascent_steps, perturbed_steps = 3, 6, 3

    def __init__(self, person: Person) -> None:
        super().__init__(person)
        self.lasting: Surrogate = FullSurrogate(person.diffusion)

    def before_step(self, step: int) -> None:
        if step % self.ascent_steps:
            return
        if step:
            perturbed = self.person.perturbed_latents()
            tuner = self.tuner(self.lasting)
            tuner.train(perturbed, self.perturbed_steps, self.draws("perturbed", step))
        with torch.no_grad():
            pairs = zip(self.surrogate.weights(), self.lasting.weights(), strict=True)
            for weight, lasting in pairs:
                weight.copy_(lasting)
        tuner = self.tuner(self.surrogate)
        tuner.train(self.person.clean_latents, self.clean_steps, self.draws("clean", step))


class CrossAttentionSurrogate(FullSurrogate):
    """Trains keys and values of cross-attention and leaves the rest, as Custom Diffusion does."""

    def weights(self) -> list[Tensor]:
        parts = (".attn2.to_k.", ".attn2.to_v.")
        return [weight for name, weight in self.state.items() if any(p in name for p in parts)]


class Caat(AdvDm):
    """Perturbs against cross-attention that learns at the same time.

    Xu et al. 2024, "Perturbing Attention Gives You More Bang for the Buck" (arXiv:2404.15081),
    Algorithm 1: keys and values of cross-attention descend L_den while the perturbation ascends
    it. There one backward pass serves both; here a training step precedes each ascent.
    """

    def __init__(self, person: Person) -> None:
        super().__init__(person)
        self.surrogate = CrossAttentionSurrogate(person.diffusion)
        self.learner = self.tuner(self.surrogate)

    def before_step(self, step: int) -> None:
        self.learner.train(self.person.perturbed_latents(), 1, self.draws(step))


class MetaCloak(AdvDm):
    """MetaCloak-style: several surrogates of different age, resets, and transforms in the loop.

    After Liu et al. 2024, "MetaCloak" (arXiv:2311.13127): a pool of staggered surrogates, so that
    the perturbation suits no single moment of training, and expectation over transforms. Not
    theirs: one surrogate per step instead of a mean over the pool, and our transforms.
    """

    num_surrogates, life_turns = 3, 30

    def __init__(self, person: Person) -> None:
        super().__init__(person)
        pool = [FullSurrogate(person.diffusion) for _ in range(self.num_surrogates)]
        self.pool = [self.tuner(surrogate) for surrogate in pool]
        self.looks = replace(self.looks, handling=True)

    def before_step(self, step: int) -> None:
        turn, number = divmod(step, self.num_surrogates)
        learner = self.pool[number]
        # Each returns to the checkpoint at another time, so that the pool is of all ages.
        if turn and (turn + number * self.life_turns // self.num_surrogates) % self.life_turns == 0:
            learner.reset()
        learner.train(self.person.perturbed_latents(), 1, self.draws(step))
        self.surrogate = learner.surrogate

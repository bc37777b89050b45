"""All baselines and controls by name, and one person's photos through any of them."""

from collections.abc import Callable, Sequence

from tools.evaluation.baselines.baseline import Baseline
from tools.evaluation.baselines.controls import Donor, borrow, sign_noise
from tools.evaluation.baselines.encoders import Mist, MistUntargeted, PhotoGuard
from tools.evaluation.baselines.facelock import FaceLock
from tools.evaluation.baselines.person import Person
from tools.evaluation.baselines.simac import Simac
from tools.evaluation.baselines.surrogates import AdvDm, Aspl, Caat, Fsmg, MetaCloak

SIGN_NOISE, BORROWED, FACELOCK = "sign_noise", "borrowed", "facelock"

BASELINES: dict[str, Callable[[Person], Baseline]] = {
    "advdm": AdvDm,
    "aspl": Aspl,
    "caat": Caat,
    FACELOCK: FaceLock,
    "fsmg": Fsmg,
    "metacloak-style": MetaCloak,
    "mist": Mist,
    "mist-untargeted": MistUntargeted,
    "photoguard": PhotoGuard,
    "simac": Simac,
}

METHODS = (SIGN_NOISE, BORROWED, *BASELINES)


def perturb(method: str, person: Person, donors: Sequence[Donor] = ()) -> None:
    """Changes the photos of a person in place, by one of ``METHODS``.

    Args:
        method: Its name.
        person: At the start.
        donors: Only of ``borrowed``: our changes of another person's photos.

    Raises:
        ValueError: If the effort did not suffice for a single step, or donors are missing.
        GradientError: If a photo's gradient was zero or not finite.
    """
    if method == SIGN_NOISE:
        sign_noise(person)
    elif method == BORROWED:
        borrow(person, donors)
    else:
        BASELINES[method](person).run()

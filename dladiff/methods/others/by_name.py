"""All methods of others by name."""

from collections.abc import Callable

from dladiff.methods.others.baseline import Baseline
from dladiff.methods.others.encoders import Mist, MistUntargeted, PhotoGuard
from dladiff.methods.others.facelock import FaceLock
from dladiff.methods.others.person import Person
from dladiff.methods.others.simac import Simac
from dladiff.methods.others.surrogates import AdvDm, Aspl, Caat, Fsmg, MetaCloak

FACELOCK = "facelock"

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
"""Each at work on a person when called; ``run`` takes its steps."""

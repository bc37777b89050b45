"""The errors of the method.

    DladiffError
    ├── GradientError       an image gradient is zero or not finite: no protection would result
    └── ModelError          weights are missing, damaged or not what they claim to be

A caller's mistake (a value out of range, a wrong shape) is a plain ``ValueError``.
"""


class DladiffError(Exception):
    """Base of all errors raised on purpose by this package."""


class GradientError(DladiffError):
    """An image gradient is zero or not finite, so a step would protect nothing."""


class ModelError(DladiffError):
    """Weights are missing, damaged, or disagree with their reference runtime."""

"""Which weight files are installed, what they are, and their digests. Imports no torch."""

from dladiff.config import MethodSettings


def weights_sha256(method: MethodSettings) -> dict[str, str]:
    """sha256 hex of every weight file that a method reads, by a stable name.

    Part of the method digest, so that other weights under the same path are another method.

    Raises:
        ConfigurationError: If a named file does not exist, with the remedy.
    """
    raise NotImplementedError

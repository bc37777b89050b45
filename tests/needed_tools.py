"""Tools of other makers that some tests run: missing on a laptop they skip, in CI they fail."""

import os
import shutil
from typing import NoReturn

import pytest


def need(command: str, package: str) -> str:
    """Path of a command; without it the test is skipped, under CI=true it fails.

    Args:
        package: Debian package that brings it, for the message.
    """
    path = shutil.which(command)
    if path is None:
        missing(f"no {command}: apt-get install {package}")
    return path


def missing(reason: str) -> NoReturn:
    """Skips the test for want of a tool, or fails it where continuous integration runs."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason} (.ci/run does)", pytrace=False)
    pytest.skip(reason)

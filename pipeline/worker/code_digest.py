"""The digest of our own code, so that a worker never runs another version than its driver."""

import hashlib
from pathlib import Path

import dladiff
import pipeline


def code_digest() -> str:
    """sha256 hex over the names and contents of all Python files of both packages."""
    digest = hashlib.sha256()
    for package in (dladiff, pipeline):
        folder = Path(str(package.__file__)).parent
        for path in sorted(folder.rglob("*.py")):
            digest.update(f"{package.__name__}/{path.relative_to(folder)}\n".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()

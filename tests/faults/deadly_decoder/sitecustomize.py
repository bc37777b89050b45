"""Python imports this at its start where its folder is on PYTHONPATH: Pillow gets a deadly bug.

A file that says so ends the process that opens it, as a fault in a C decoder would, or never ends.
"""

import io
import os
import signal
import time
from typing import Any

from PIL import Image

_open = Image.open


def _deadly_open(fp: io.BytesIO, *args: Any, **options: Any) -> Image.Image:
    if b"ends its decoder" in fp.getvalue()[:64]:
        os.kill(os.getpid(), signal.SIGSEGV)
    while b"spins for ever" in fp.getvalue()[:64]:
        pass
    while b"waits for ever" in fp.getvalue()[:64]:
        time.sleep(1)
    return _open(fp, *args, **options)


Image.open = _deadly_open  # type: ignore[assignment]

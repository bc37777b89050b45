"""Tries photos out, each in a process of its own, where an earlier attempt at their set crashed.

A decoder in C that meets bytes it was not made for may end its process; without this, one such file
would take the good photos beside it along, as the whole set would be quarantined.
"""

import dataclasses
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress

from pipeline.errors import PhotoError
from pipeline.images.files import PhotoLimits, decode_photo
from pipeline.reasons import Reason, ReasonCode
from pipeline.records import ReadPhoto

_log = logging.getLogger("dladiff.worker")

DECODING_LIMIT_S = 120.0
"""For one photo with the start of its process, on a machine that is busy with others."""
_READY, _DONE = b"ready", b"done"


def refuse_deadly_photos(
    reads: Sequence[ReadPhoto],
    limits: PhotoLimits,
    time_limit_s: float,
    on_progress: Callable[[], None] = lambda: None,
) -> list[ReadPhoto]:
    """The same reads; a photo whose decoding ends its process, or hangs, gets the reason.

    Args:
        time_limit_s: For one photo.
        on_progress: Called before each.

    Raises:
        RuntimeError: If such a process cannot even start.
    """
    checked: list[ReadPhoto] = []
    for read in reads:
        on_progress()
        if read.content is not None and not _survives(read.content, limits, time_limit_s):
            _log.warning("a photo ends the process that decodes it: refused")
            reason = Reason(ReasonCode.CORRUPT, "decoding it ends the process")
            read = ReadPhoto(None, read.sha256, reason)
        checked.append(read)
    return checked


def _survives(content: bytes, limits: PhotoLimits, time_limit_s: float) -> bool:
    command = [sys.executable, "-P", "-m", __name__, json.dumps(dataclasses.asdict(limits))]
    try:
        said = subprocess.run(command, input=content, capture_output=True, timeout=time_limit_s)
    except subprocess.TimeoutExpired:
        return False
    if not said.stdout.startswith(_READY):
        raise RuntimeError(f"cannot try a photo out: {said.stderr.decode(errors='replace')[-500:]}")
    return said.stdout == _READY + _DONE


def _main() -> None:
    """Decodes standard input; dies where the decoder does."""
    limits = PhotoLimits(**json.loads(sys.argv[1]))
    sys.stdout.buffer.write(_READY)
    sys.stdout.buffer.flush()
    # Damaged files and too little memory are for the worker to judge.
    with suppress(PhotoError, MemoryError):
        decode_photo(sys.stdin.buffer.read(), limits)
    sys.stdout.buffer.write(_DONE)


if __name__ == "__main__":
    _main()

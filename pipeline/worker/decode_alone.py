"""Tries photos out, each in a process of its own, where an earlier attempt at their set crashed.

A decoder in C that meets bytes it was not made for may end its process; without this, one such file
would take the good photos beside it along, as the whole set would be quarantined.
"""

import dataclasses
import json
import logging
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress

from pipeline.errors import PhotoError
from pipeline.images.files import PhotoLimits, decode_photo
from pipeline.reasons import Reason, ReasonCode
from pipeline.records import ReadPhoto

_log = logging.getLogger("dladiff.worker")

DECODING_LIMIT_S = 60.0
"""CPU seconds for one photo: a decoder that a busy machine leaves waiting does not hang."""
MAX_WAIT_S = 900.0
"""For one photo by the clock, with the start of its process, whatever others do meanwhile."""
_READY, _DONE = b"ready", b"done"


def refuse_deadly_photos(
    reads: Sequence[ReadPhoto],
    limits: PhotoLimits,
    time_limit_s: float,
    on_progress: Callable[[], None] = lambda: None,
) -> list[ReadPhoto]:
    """The same reads; a photo whose decoding ends its process, or hangs, gets the reason.

    Args:
        time_limit_s: For one photo, CPU seconds of its decoder.
        on_progress: Called before each.

    Raises:
        RuntimeError: If such a process cannot even start, or not within ``MAX_WAIT_S``.
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
    command = [sys.executable, "-P", "-m", __name__, str(time_limit_s)]
    command.append(json.dumps(dataclasses.asdict(limits)))
    try:
        done = subprocess.run(command, input=content, capture_output=True, timeout=MAX_WAIT_S)
        said, trouble = done.stdout, done.stderr.decode(errors="replace")[-500:]
    except subprocess.TimeoutExpired as late:
        said, trouble = late.stdout or b"", "its process does not start"
    if not said.startswith(_READY):
        raise RuntimeError(f"cannot try a photo out: {trouble}")
    return said == _READY + _DONE


def _main() -> None:
    """Decodes standard input; dies where the decoder does, or takes too much CPU time."""
    limits = PhotoLimits(**json.loads(sys.argv[2]))
    sys.stdout.buffer.write(_READY)
    sys.stdout.buffer.flush()
    signal.setitimer(signal.ITIMER_PROF, float(sys.argv[1]))  # its signal ends a process, C or not
    # Damaged files and too little memory are for the worker to judge.
    with suppress(PhotoError, MemoryError):
        decode_photo(sys.stdin.buffer.read(), limits)
    sys.stdout.buffer.write(_DONE)


if __name__ == "__main__":
    _main()

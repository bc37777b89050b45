"""Logging of the driver and the workers: human lines or JSON lines, without names of persons.

At info level and above no record may carry an identity, a file name or a URI: whoever reads a
cluster's logs need not be allowed to see who was protected. Code passes such values with
``extra={"photo": uri}``; they are written at debug level only.
"""

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import TextIO

_LOGGER = "dladiff"
_NAMING = re.compile(
    r"(?:file|s3|gs|abfs|abfss|https?)://\S+"
    r"|/[^\s/]+/\S+|\bimages/\S+"
    r"|(?:\S*/)?\S+\.(?:jpe?g|png|webp|heic|heif|tiff?|bmp|gif|avif)\b\S*",
    re.IGNORECASE,
)
"""Anything that looks like the address or the name of a photo."""


def set_up_logging(
    as_json: bool = False, verbose: bool = False, stream: TextIO | None = None
) -> logging.Logger:
    """Sends the records of ``dladiff.*`` to ``stream`` (stderr); may be called again.

    Args:
        as_json: One JSON object a line, with ``time`` (UTC), ``level``, ``logger``, ``message``.
        verbose: Debug level, which may name photos; else info.
        stream: Where to write; None: stderr.

    Returns:
        The logger above all of ours, for callers that want to add a handler.
    """
    logger = logging.getLogger(_LOGGER)
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if as_json else _LineFormatter())
    if not verbose:
        handler.addFilter(hide_names)
    logger.handlers = [handler]
    logger.propagate = False
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    return logger


def hide_names(record: logging.LogRecord) -> bool:
    """A logging filter that replaces addresses and names of photos by ``<photo>``.

    The second line of defence, for texts of libraries (an ``OSError`` names its file); the first
    is that our own messages carry counts and causes only.
    """
    text = record.getMessage()
    hidden = _NAMING.sub("<photo>", text)
    if hidden != text:
        record.msg, record.args = hidden, ()
    if record.exc_info:
        kind = record.exc_info[0]
        record.msg = f"{record.getMessage()} ({kind.__name__ if kind else 'unknown error'})"
        record.args, record.exc_info, record.exc_text = (), None, None
    return True


class _LineFormatter(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S")


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry)

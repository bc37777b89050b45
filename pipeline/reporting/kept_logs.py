"""Logs that survive their machine: lines of a process, kept in OUTPUT below ``runs/<id>/logs/``.

A pod takes its output along when it goes. Each process writes objects of its own, whole ones, every
ten seconds and at its end; one that is killed loses the lines since. Never raises: a store that is
away has its own messages.
"""

import copy
import json
import logging
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from pipeline.errors import PipelineError
from pipeline.output.runs import LOGS, run_key
from pipeline.reporting.logs import JsonFormatter, hide_names
from pipeline.storage.store import Store, open_store

_EVERY_S = 10.0
_MAX_LINES = 5000
"""The most lines of an object; then the next one is begun."""
_LOGGER = "dladiff"


class KeptLog(logging.Handler):
    """Keeps what ``dladiff.*`` says at level info and above, without names of people or photos."""

    def __init__(self, store: Store, run_id: str, process: str) -> None:
        """
        Args:
            store: OUTPUT.
            process: What this process is in the run, ``driver`` or ``worker``.
        """
        super().__init__(logging.INFO)
        self.setFormatter(JsonFormatter())
        # Of its own: what waits for the run's work does not keep its words waiting.
        self._store = open_store(store.uri, single_writer=store.single_writer)
        now = datetime.now(UTC)
        host = "".join(sign if sign.isalnum() else "-" for sign in socket.gethostname())[:40]
        self._name = (
            run_key(run_id, LOGS) + f"{process}-{now:%Y%m%dT%H%M%S.%fZ}-{host}-{os.getpid()}"
        )
        self._number = 0
        self._lines: dict[int, list[str]] = {}
        """Lines of the objects that the store has not got whole, by number; the last one grows."""
        self._new: set[int] = set()
        self._ended = threading.Event()
        threading.Thread(target=self._keep_on, name="kept-log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        own = copy.copy(record)  # the filter writes into it
        hide_names(own)
        lines = self._lines.setdefault(self._number, [])
        if len(lines) >= _MAX_LINES:
            self._number += 1
            lines = self._lines.setdefault(self._number, [])
        lines.append(self.format(own))
        self._new.add(self._number)

    def write_now(self) -> None:
        """Writes what is new, if the store takes it; nobody who logs meanwhile waits for that."""
        for number in sorted(self._new):
            self._new.discard(number)
            suffix = f".{number}" if number else ""
            text = "\n".join(self._lines[number]) + "\n"
            if not self._write(f"{self._name}{suffix}.jsonl", text):
                self._new.add(number)
            elif number < self._number:
                del self._lines[number]

    def end(self, summary: Mapping[str, Any] | None = None) -> None:
        """Writes the last lines, and how the process ended.

        Args:
            summary: JSON values.
        """
        self._ended.set()
        self.write_now()
        if summary is not None:
            self._write(f"{self._name}.end.json", json.dumps(summary, sort_keys=True, indent=1))

    def _write(self, key: str, text: str) -> bool:
        try:
            with self._store.in_haste():
                self._store.write(key, text.encode())
        except (PipelineError, OSError):
            return False
        return True

    def _keep_on(self) -> None:
        while not self._ended.wait(_EVERY_S):
            self.write_now()


@contextmanager
def kept_log(store: Store, run_id: str, process: str) -> Iterator[KeptLog]:
    """Keeps the logs of a block; where an exception ends it, that is the last line."""
    log = KeptLog(store, run_id, process)
    logger = logging.getLogger(_LOGGER)
    logger.addHandler(log)
    try:
        yield log
    except BaseException as error:
        logging.getLogger("dladiff.run").debug("ended by", exc_info=error)
        log.handle(_last_line(error))
        log.end({"ended_by": type(error).__name__})
        raise
    finally:
        logger.removeHandler(log)


def keep_log(store: Store, run_id: str, process: str) -> KeptLog:
    """Keeps the logs of this process for as long as it lives."""
    log = KeptLog(store, run_id, process)
    logging.getLogger(_LOGGER).addHandler(log)
    return log


def _last_line(error: BaseException) -> logging.LogRecord:
    text = f"ended by {type(error).__name__}: {error}"
    return logging.LogRecord("dladiff.run", logging.ERROR, "", 0, text, (), None)

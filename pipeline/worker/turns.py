"""Which of a worker's photo sets computes: one at a time, while another one's files are staged.

Knows threads. Knows nothing of what a set is.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """Hands the turn to compute from one set to the next; every set runs in a thread of its own."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._one_computes = False
        self._num_staging = 0

    @contextmanager
    def take(self) -> Iterator["Turn"]:
        """Waits until no other set computes; the turn ends with the block, or when passed on."""
        with self._changed:
            self._changed.wait_for(lambda: not self._one_computes)
            self._one_computes = True
        turn = Turn(self)
        try:
            yield turn
        finally:
            self._end(turn)

    def _pass_on(self, turn: "Turn") -> None:
        with self._changed:
            if not turn.is_passed_on:
                turn.is_passed_on = True
                self._one_computes = False
                self._num_staging += 1
                self._changed.notify_all()

    def _wait_until_alone(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._num_staging)

    def _end(self, turn: "Turn") -> None:
        with self._changed:
            if turn.is_passed_on:
                self._num_staging -= 1
            else:
                self._one_computes = False
            self._changed.notify_all()


class Turn:
    """A set's turn to compute."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self.is_passed_on = False

    def be_alone(self) -> None:
        """Waits until no other set is staged: what this one does may end the process."""
        self._turns._wait_until_alone()

    def pass_on(self) -> None:
        """Lets the next set compute; what this one still does runs beside it."""
        self._turns._pass_on(self)

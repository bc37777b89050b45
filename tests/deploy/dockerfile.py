"""Bare roots of a Debian, and the Dockerfile read as instructions and run in one without Docker.

Knows the instructions that the file uses, and refuses others. A layer is a folder that is changed
in place.
"""

import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.needed_tools import missing, need

_KNOWN = ("FROM", "RUN", "COPY", "USER", "WORKDIR", "ENV", "CMD")
_OF_THIS_MACHINE = (
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/pip.conf",
    "/etc/ssl/certs/ca-certificates.crt",
)
"""How this machine reaches archives; a build gets the same from its Docker daemon."""


@dataclass(frozen=True)
class Instruction:
    """One instruction of a Dockerfile, its lines joined."""

    name: str
    text: str


def instructions(text: str) -> list[Instruction]:
    """The instructions of a Dockerfile, in their order, comments left out."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    found = [Instruction(*line.split(maxsplit=1)) for line in joined.splitlines()]
    unknown = {one.name for one in found} - set(_KNOWN)
    assert not unknown, f"teach {__name__} these instructions: {unknown}"
    return found


def base_of(text: str) -> re.Match[str]:
    """The base image, in its groups ``name``, ``suite``, ``date`` and ``digest``."""
    [base] = [one.text for one in instructions(text) if one.name == "FROM"]
    found = re.fullmatch(
        r"(?P<name>debian):(?P<suite>[a-z]+)-(?P<date>\d{8})-slim@sha256:(?P<digest>[0-9a-f]{64})",
        base,
    )
    assert found is not None, base
    return found


class BareRoot:
    """A folder with a minimal Debian in it, in which instructions run as root by ``chroot``."""

    def __init__(self, folder: Path, context: Path) -> None:
        """
        Args:
            folder: Does not exist yet.
            context: What ``COPY`` copies from.
        """
        self.folder, self._context = folder, context
        self.environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        self.user = "0:0"
        self.workdir = "/"
        self.command: list[str] = []

    def run(self, one: Instruction) -> None:
        """Does what Docker does for an instruction.

        Raises:
            AssertionError: If a command of it fails, with its output.
        """
        if one.name == "FROM":
            self.bootstrap(base_of(f"FROM {one.text}")["suite"])
        elif one.name == "RUN":
            self.call(["/bin/sh", "-c", one.text], timeout=1500)
        elif one.name == "COPY":
            self._copy(one.text.split())
        elif one.name == "ENV":
            self._set(one.text)
        elif one.name == "USER":
            self.user = one.text
        elif one.name == "WORKDIR":
            self.workdir = one.text
        elif one.name == "CMD":
            self.command = shlex.split(one.text.strip("[]").replace(",", " "))

    def call(self, command: list[str], timeout: float = 120, read_only: bool = False) -> str:
        """Standard output of a command in this root, as the user and in the folder set so far.

        Args:
            read_only: Nothing but a fresh ``/tmp`` can be written, as in the pods.
        """
        root = shlex.quote(str(self.folder))
        mounts = [
            f"mount --bind {root} {root}",
            f"mount -t proc proc {root}/proc",
            f"mount --rbind /dev {root}/dev",
        ]
        if read_only:
            mounts += [f"mount -o remount,bind,ro {root}", f"mount -t tmpfs tmpfs {root}/tmp"]
            mounts += [f"chmod 1777 {root}/tmp"]
        inside = f"cd {shlex.quote(self.workdir)} && exec {shlex.join(command)}"
        leave = f"exec chroot --userspec={self.user} {root} /bin/sh -c {shlex.quote(inside)}"
        done = subprocess.run(
            ["unshare", "--mount", "--", "/bin/sh", "-ec", "\n".join([*mounts, leave])],
            env={**_index(), **self.environment},
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
        return done.stdout

    def bootstrap(self, suite: str, packages: str = "ca-certificates") -> None:
        """Makes the folder: the smallest Debian of a release, with what this machine knows.

        Args:
            suite: The release's name.
            packages: More of its packages, with commas between them.

        Raises:
            AssertionError: If debootstrap fails, with its output.
        """
        command = ["debootstrap", "--variant=minbase", f"--include={packages}", suite]
        done = subprocess.run(
            [*command, str(self.folder), "http://deb.debian.org/debian"],
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr
        for name in _OF_THIS_MACHINE:
            source, target = Path(name), self.folder / name.lstrip("/")
            if source.exists():
                shutil.copyfile(source, target)

    def _copy(self, words: list[str]) -> None:
        *sources, target = words
        for name in sources:
            source, to = self._context / name, self.folder / target.lstrip("/")
            if source.is_dir():
                shutil.copytree(source, to, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                to.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, to)

    def _set(self, text: str) -> None:
        for word in shlex.split(text):
            name, value = word.split("=", 1)
            self.environment[name] = value.replace("$PATH", self.environment["PATH"])


@contextmanager
def bare_root(context: Path) -> Iterator[BareRoot]:
    """A root that does not exist yet and is deleted at the end; skips where none can be made."""
    need("debootstrap", package="debootstrap")
    if os.geteuid() != 0:
        missing("not root: chroot and mounts need it")
    parent = Path(tempfile.mkdtemp(prefix="image-"))
    try:
        yield BareRoot(parent / "root", context)
    finally:
        shutil.rmtree(parent, ignore_errors=True)  # gigabytes


def _index() -> dict[str, str]:
    """Where pip finds its archives on this machine."""
    return {name: value for name, value in os.environ.items() if name.startswith("PIP_")}

"""The addresses of photos and outputs: one spelling for each place, and which lies below which.

Knows text and, for local folders, symbolic links. Opens nothing.
"""

import os
import re
from collections.abc import Iterable

from pipeline.errors import ConfigurationError

SCHEMES = ("file", "s3", "gs", "abfs")

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x1f]")
_HALF_SCHEME = re.compile(rf"({'|'.join(SCHEMES)}):(?!//)", re.IGNORECASE)


def normalise_uri(text: str) -> str:
    """The one absolute spelling of a folder or object.

    What follows the scheme is taken verbatim, as by fsspec and ``aws s3``: ``%20`` is three
    characters, not a space.

    Args:
        text: A local path (``~`` and relative ones allowed) or a URI of ``SCHEMES``.

    Returns:
        ``file:///absolute/path`` or ``scheme://bucket/prefix``, without a trailing slash.

    Raises:
        ConfigurationError: For another scheme, chained file systems, credentials in the URI, a
            missing bucket, or ``..`` in a bucket's prefix.
    """
    if not text or _CONTROL.search(text):
        raise ConfigurationError(f"expected a path or URI, got {text!r}")
    if "::" in text:
        raise ConfigurationError(f"{text!r} chains file systems with '::', which is not allowed")
    match = _SCHEME.match(text)
    if match is None:
        if _HALF_SCHEME.match(text):
            raise ConfigurationError(f"{text!r}: write '://' after the scheme")
        return _file_uri(os.path.expanduser(text))
    scheme, rest = match.group(1).lower(), match.group(2)
    if scheme not in SCHEMES:
        raise ConfigurationError(
            f"{text!r}: scheme {scheme!r} is not supported, use a path or one of "
            + ", ".join(f"{name}://" for name in SCHEMES)
        )
    if scheme == "file":
        if not rest.startswith("/"):
            raise ConfigurationError(f"{text!r}: a file URI is absolute, file:///folder")
        return _file_uri(rest)
    return _bucket_uri(scheme, rest, text)


def split_uri(uri: str) -> tuple[str, str, str]:
    """Parts of a normalised URI: scheme, bucket ('' for local files), path without slashes around.

    The path of ``file:///in/ann`` is ``/in/ann``, as the operating system wants it.
    """
    scheme, _, rest = uri.partition("://")
    if scheme == "file":
        return scheme, "", rest
    bucket, _, path = rest.partition("/")
    return scheme, bucket, path


def lies_below(uri: str, root: str) -> bool:
    """Whether ``uri`` is ``root`` or lies below it; local links are followed on both sides.

    Both are normalised URIs.
    """
    first, second = uri, root
    if uri.startswith("file:") and root.startswith("file:"):  # links are a matter of local folders
        first, second = _resolved(uri), _resolved(root)
    return first == second or first.startswith(second.rstrip("/") + "/")


def _file_uri(path: str) -> str:
    # abspath keeps a leading double slash, which POSIX allows to mean something else.
    return "file:///" + os.path.abspath(path).lstrip("/")


def _bucket_uri(scheme: str, rest: str, text: str) -> str:
    bucket, _, path = rest.partition("/")
    path = path.rstrip("/")
    if not bucket:
        raise ConfigurationError(f"{text!r} names no bucket: write {scheme}://bucket/folder")
    if "@" in bucket and scheme != "abfs":
        raise ConfigurationError(
            f"a {scheme} URI must not carry credentials: they come from the environment"
        )
    if any(part in (".", "..") for part in path.split("/")):
        raise ConfigurationError(f"{text!r}: '.' and '..' have no meaning in a bucket")
    return f"{scheme}://{bucket}/{path}" if path else f"{scheme}://{bucket}"


def _resolved(uri: str) -> str:
    return "file://" + os.path.realpath(split_uri(uri)[2])


def folder_and_name(uri: str) -> tuple[str, str]:
    """The normalised URI of the folder that holds an object, and the object's name in it.

    Of a bare bucket the folder is no URI: ask only of what lies in one.
    """
    folder, _, name = uri.rpartition("/")
    return ("file:///" if folder == "file://" else folder), name


def root_of(uri: str, roots: Iterable[str]) -> str | None:
    """The longest of ``roots`` below which ``uri`` is written; None: below none."""
    below = [root for root in roots if uri.startswith(root.rstrip("/") + "/")]
    return max(below, key=len, default=None)

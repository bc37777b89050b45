"""The console script ``dladiff``: the command, or a sentence where its packages are not installed.

The base install is the method alone, as a library; the command needs the extra ``pipeline``.
"""

import importlib.util
import sys

PACKAGES = (
    "fsspec",
    "jinja2",
    "pillow_heif",
    "prometheus_client",
    "pyarrow",
    "ray",
    "requests",
    "rich",
    "s3fs",
    "typer",
)
"""What the extra brings, by the names that are imported."""


def main() -> None:
    """Runs the command; exits with 1 where the extra is not installed."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(
            "dladiff: only the library is installed; the command needs its extra: "
            f"pip install 'dladiff[pipeline]' (missing: {', '.join(missing)})"
        )
    from pipeline.cli import main as run

    run()

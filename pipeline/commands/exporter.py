"""``dladiff exporter``: metrics of OUTPUTs also while nothing runs."""

import os
import threading
from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.arguments import Verbose, log_to_stderr


def exporter(
    output_uris: Annotated[
        list[str],
        typer.Argument(metavar="OUTPUT...", help="Folders or buckets that runs protect into."),
    ],
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Serve on this port; 0 takes a free one.")
    ] = 9465,
    textfile: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the metrics once into FILE, for the node exporter's textfile collector, "
            "instead of serving them.",
        ),
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Tell Prometheus how OUTPUTs stand while nothing runs.

    When a run last ended and last succeeded, since when uploads may be unprotected, whether a run
    works now. Reads two small objects of each OUTPUT at every scrape; writes nothing.
    """
    log_to_stderr(verbose)
    from pipeline.reporting.metrics import serve
    from pipeline.reporting.output_metrics import OutputMetrics
    from pipeline.storage.store import open_store

    metrics = OutputMetrics([open_store(uri) for uri in output_uris])
    if textfile is not None:
        _replace(textfile, metrics.to_prom_text())
        return
    print(f"serving metrics on port {serve(metrics.registry, port)}", flush=True)
    threading.Event().wait()


def _replace(path: Path, text: str) -> None:
    """In one step: the collector must not see half a file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text)
        temporary.replace(path)
    except OSError as error:
        from pipeline.errors import ConfigurationError

        temporary.unlink(missing_ok=True)
        raise ConfigurationError(f"cannot write {path}: {error.strerror}") from None

"""``dladiff status``: a run in numbers, also while it works."""

from pipeline.commands.arguments import (
    AsJson,
    OutputUri,
    RunId,
    Verbose,
    log_to_stderr,
    show,
)


def status(
    output_uri: OutputUri,
    run_id: RunId = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Show a run in numbers: planned, decided by status, throughput, time left, lock."""
    log_to_stderr(verbose)
    from pipeline.inspection.status import read_status, status_lines
    from pipeline.storage.store import open_store

    found = read_status(open_store(output_uri), run_id)
    show(found, status_lines, as_json)

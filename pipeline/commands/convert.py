"""``dladiff convert``: an OUTPUT of PNG files becomes one of files as their originals are."""

from enum import StrEnum
from typing import Annotated

import typer

from pipeline.commands.arguments import (
    AsJson,
    ConfigFile,
    OutputUri,
    Overrides,
    Preset,
    Verbose,
    configuration,
    log_to_stderr,
    show,
)


class _Format(StrEnum):
    SAME, WEBP, JPEG = "same", "webp", "jpeg"


def convert(
    output_uri: OutputUri,
    to: Annotated[
        _Format,
        typer.Option(help="The output.format that OUTPUT has from then on."),
    ] = _Format.SAME,
    preset: Preset = None,
    config_file: ConfigFile = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Give the photos of an OUTPUT of PNG files the format and name of their originals.

    So 1.jpg.png becomes 1.jpg. Nothing is protected anew: the protected pixels are coded as the
    original is, the figures of the manifest are measured on the new file, by the models of the run
    that made it or of --preset, and the PNG file is deleted. Originals are read for that, and
    addresses change: point a platform at the new ones. Photos whose original is gone or changed
    stay PNG and are counted. If it is interrupted, run it again. No run may work meanwhile.
    """
    log_to_stderr(verbose)
    from pipeline.reporting.displays import progress_bar
    from pipeline.storage.store import open_store
    from pipeline.upkeep.convert import conversion_lines, convert_output

    measured_by = None
    if preset is not None or config_file is not None or overrides:
        measured_by = configuration(preset, config_file, overrides).method
    with progress_bar("convert") as on_progress:
        report = convert_output(open_store(output_uri), to.value, measured_by, on_progress)
    show(report, conversion_lines, as_json)

"""``dladiff models``: which models there are, and on what terms."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import typer

from pipeline.commands.arguments import (
    AsJson,
    ConfigFile,
    Overrides,
    Preset,
    configuration,
    show,
)

if TYPE_CHECKING:
    from pipeline.models.registry import ModelFile


def models(
    preset: Preset = None,
    config_file: ConfigFile = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """List the installed models, their terms and digests, and those the configuration names."""
    from pipeline.models.registry import list_models

    found = list_models(configuration(preset, config_file, overrides).method)
    show(found, _lines, as_json)
    raise typer.Exit(0 if all(model.state == "ok" for model in found) else 1)


def _lines(found: "Sequence[ModelFile]") -> Iterator[str]:
    for model in found:
        yield f"{model.name}: {model.purpose}, {model.state}"
        yield f"    terms   {model.terms}"
        if model.sha256:
            yield f"    sha256  {model.sha256}  ({model.num_bytes:,} bytes)"
            yield f"    path    {model.path}"
        if model.remedy:
            yield f"    remedy  {model.remedy}"

"""``dladiff check`` and ``dladiff models``: is everything there that a run needs?"""

from typing import Annotated

import typer

from pipeline.commands.arguments import (
    AsJson,
    ConfigFile,
    Overrides,
    Preset,
    Verbose,
    configuration,
)


def models(
    preset: Preset = None,
    config_file: ConfigFile = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """List the installed models, their terms and digests, and those the configuration names."""
    import json
    from dataclasses import asdict

    from pipeline.models.registry import list_models

    found = list_models(configuration(preset, config_file, overrides).method)
    if as_json:
        print(json.dumps([asdict(model) for model in found], indent=2, default=str))
    else:
        for model in found:
            print(f"{model.name}: {model.purpose}, {model.state}")
            print(f"    terms   {model.terms}")
            if model.sha256:
                print(f"    sha256  {model.sha256}  ({model.num_bytes:,} bytes)")
                print(f"    path    {model.path}")
            if model.remedy:
                print(f"    remedy  {model.remedy}")
    raise typer.Exit(0 if all(model.state == "ok" for model in found) else 1)


def check(
    input_uri: Annotated[
        str | None,
        typer.Argument(metavar="[INPUT]", help="Is it there and can it be listed?"),
    ] = None,
    output_uri: Annotated[
        str | None,
        typer.Argument(
            metavar="[OUTPUT]",
            help="Can it be written, does the store honour exclusive creation, who holds the lock?",
        ),
    ] = None,
    preset: Preset = None,
    config_file: ConfigFile = None,
    overrides: Overrides = None,
    load_models: Annotated[
        bool, typer.Option("--load-models", help="Also load every model (takes seconds).")
    ] = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Check that a run can work: configuration, models, access to INPUT and OUTPUT.

    One line per check, ok or fail with a remedy; exit code 1 if one fails. A few small objects
    are written below OUTPUT/locks and deleted again.
    """
    import json
    from dataclasses import asdict

    from pipeline.inspection.check import check_all, check_lines

    checks = check_all(
        lambda: configuration(preset, config_file, overrides), input_uri, output_uri, load_models
    )
    if as_json:
        print(json.dumps([asdict(one) for one in checks], indent=2))
    else:
        print("\n".join(check_lines(checks)))
    raise typer.Exit(0 if all(one.ok for one in checks) else 1)

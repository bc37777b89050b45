"""``dladiff config``: the resolved settings, and their schema."""

from typing import Annotated

import typer

from pipeline.commands.arguments import ConfigFile, Overrides, Preset, configuration

app = typer.Typer(
    help="Show the settings and their meaning.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
)


@app.command("show")
def show(
    preset: Preset = None,
    config_file: ConfigFile = None,
    overrides: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of YAML.")] = False,
) -> None:
    """Print the whole configuration as a run would use it.

    The YAML is a valid --config file.
    """
    import json

    import yaml

    values = configuration(preset, config_file, overrides).model_dump(mode="json")
    if as_json:
        print(json.dumps(values, indent=2))
    else:
        print(yaml.safe_dump(values, sort_keys=False), end="")


@app.command("schema")
def schema() -> None:
    """Print the JSON Schema of the configuration: every key, its meaning, range and default."""
    import json

    from pipeline.config import RunConfig

    print(json.dumps(RunConfig.model_json_schema(), indent=2))

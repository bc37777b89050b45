"""One OUTPUT, one kind of names: what ``output.format`` means where OUTPUT was begun before.

Knows ``output_format.json`` in OUTPUT, which says with which ``output.format`` it was begun, or
into which it was converted.
"""

import json
from typing import cast, get_args

from pipeline.config import OutputFormat, OutputSettings, RunConfig
from pipeline.errors import ConfigurationError, PipelineError
from pipeline.output.manifest_parts import part_keys
from pipeline.output.runs import is_begun
from pipeline.storage.store import Store

_FILE = "output_format.json"


def in_format_of(store: Store, config: RunConfig) -> RunConfig:
    """The configuration with the format that this OUTPUT goes on with.

    A person who asked for no format gets that of OUTPUT; a new OUTPUT takes the default.

    Raises:
        ConfigurationError: Another format was asked for than OUTPUT was begun with.
    """
    wanted, found = config.output.format, format_of(store)
    if found is None:
        found = wanted
    elif found != wanted and "format" in config.output.model_fields_set:
        raise ConfigurationError(
            f"{store.uri} was begun with output.format {found}, and {wanted} would mix the two: "
            f"leave output.format out to go on with {found}, choose a new OUTPUT, or change all "
            f"of this one by `dladiff convert {store.uri} --to {wanted}`"
        )
    return config.model_copy(update={"output": OutputSettings(format=found)})


def kept_format_note(wanted: OutputFormat, kept: OutputFormat) -> str | None:
    """What a person should know where OUTPUT goes on with another format than the default."""
    if kept == wanted:
        return None
    return (
        f"OUTPUT was begun with output.format {kept} and goes on so; `dladiff convert OUTPUT --to "
        f"{wanted}` changes all of it"
    )


def format_of(store: Store) -> OutputFormat | None:
    """The ``output.format`` an OUTPUT was begun with; None: nothing was done in it yet.

    One that an earlier version began says nothing and holds PNG.
    """
    if not store.root_exists():
        return None
    if next(part_keys(store), None) is None and not is_begun(store):
        return None
    try:
        content = json.loads(store.read(_FILE))
    except FileNotFoundError:
        return "png"
    except ValueError:
        content = None
    found = content.get("format") if isinstance(content, dict) else None
    if found not in get_args(OutputFormat):
        raise PipelineError(
            f"{store.uri_of(_FILE)} is damaged: write "
            '{"format": "same"} into it, or png, webp or jpeg, as OUTPUT was begun'
        )
    return cast(OutputFormat, found)


def record_format(store: Store, output_format: OutputFormat) -> None:
    """Writes down what the photos of OUTPUT are, before its first one."""
    content = json.dumps({"format": output_format}).encode()
    try:
        if store.read(_FILE) == content:
            return
    except FileNotFoundError:
        pass
    store.write(_FILE, content)

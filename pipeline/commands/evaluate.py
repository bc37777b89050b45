"""``dladiff evaluate``: attack clean and protected photos, and measure what shows."""

from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.commands.arguments import Verbose

_WHAT, _WHO, _MACHINES = "What to attack", "Whom to ask", "Machines"


def evaluate(
    clean_uri: Annotated[
        str,
        typer.Argument(
            metavar="CLEAN", help="Folder or bucket with <identity>/<photo>.", show_default=False
        ),
    ],
    protected_uri: Annotated[
        str,
        typer.Argument(
            metavar="PROTECTED",
            help="The same photos protected, as a folder of the same shape or a run's OUTPUT.",
            show_default=False,
        ),
    ],
    out_uri: Annotated[
        str,
        typer.Argument(
            metavar="OUT",
            help="Where results go. It holds generated likenesses: keep it as private as CLEAN.",
            show_default=False,
        ),
    ],
    preset: Annotated[
        str | None,
        typer.Option(
            help="quick (default): one person, two attacks, minutes on two cores. core: "
            "everybody. full: all attacks and handlings but unprotect.",
            show_default=False,
        ),
    ] = None,
    through: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="No attack, seconds per photo: what judges still see after one pass through this "
            "autoencoder (diffusers format, or TAEF2's two files), at the photos' own size, 256 "
            "and 512 px.",
            rich_help_panel=_WHAT,
            show_default=False,
        ),
    ] = None,
    attacks: Annotated[
        list[str] | None,
        typer.Option(
            "--attack",
            metavar="NAME",
            help="dreambooth, lora, textual_inversion or zero_shot. Repeatable.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    handlings: Annotated[
        list[str] | None,
        typer.Option(
            "--handling",
            metavar="NAME",
            help="none, jpeg75, half, jpeg75_half, blur, noise, noisy_upscale, clean_mix (a "
            "quarter clean photos), sdedit or gridpure (purification), unprotect (needs "
            "--remover). Repeatable.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    remover: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Network that predicts clean photos from protected ones, for --handling "
            "unprotect; `python -m tools.training.remover` trains one.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    people: Annotated[
        int | None,
        typer.Option(min=1, help="So many identities by name.", rich_help_panel=_WHAT),
    ] = None,
    skip_people: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Leave out the first so many, e.g. those on whom something was tuned.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    also: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=TREE",
            help="Another protected tree to compare with. Repeatable.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    images: Annotated[
        int | None,
        typer.Option(min=1, help="Images per attack and stop.", rich_help_panel=_WHAT),
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            help="What the attacker customises: embedded, attacker (a second model of another "
            "build), a folder in diffusers format, or a hub id with --revision. "
            "It need not be the one protected against.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    revision: Annotated[
        str | None,
        typer.Option(help="Commit of a hub checkpoint.", rich_help_panel=_WHAT),
    ] = None,
    view: Annotated[
        str | None,
        typer.Option(
            help="How the attacker crops: template, whole or face. Default: the checkpoint's face "
            "template if it has one, else whole.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    adapter: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Weights (safetensors) of the adapter for zero_shot. Default: the embedded "
            "checkpoint's own.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    adapter_encoder: Annotated[
        str | None,
        typer.Option(
            metavar="NAME=FILE",
            help="ONNX file of the encoder that the adapter reads.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    adapter_kind: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help="What --adapter is: faceid (default), faceid-plus, faceid-plusv2 or instantid.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    adapter_clip: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="CLIP vision tower (transformers format) that a Plus adapter reads besides.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    adapter_controlnet: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="ControlNet (diffusers format) of InstantID.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    config_file: Annotated[
        str | None,
        typer.Option(
            "--config",
            metavar="FILE",
            help="YAML file with preset and the keys that --set takes.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Set one value, e.g. max_people=4. Those of attacks, e.g. "
            "dreambooth.num_steps=100, make numbers comparable only among themselves. Repeatable.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    judges: Annotated[
        list[str] | None,
        typer.Option(
            "--judge",
            metavar="[FAMILY/]NAME[=FILE]",
            help="A further judge as name=model.onnx (ArcFace type). Those without a stated family "
            "count as one. Repeatable.",
            rich_help_panel=_WHO,
        ),
    ] = None,
    in_loss: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A judge that was in a loss of the protection; known already where PROTECTED is "
            "a run's OUTPUT. Repeatable.",
            rich_help_panel=_WHO,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Worker processes. Default: as CPUs and memory, or GPUs, allow.",
            rich_help_panel=_MACHINES,
        ),
    ] = None,
    threads: Annotated[
        int,
        typer.Option(min=1, help="CPU threads per worker.", rich_help_panel=_MACHINES),
    ] = 1,
    gpus_per_worker: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="GPUs that each worker takes. Default: 1 where there are GPUs.",
            rich_help_panel=_MACHINES,
        ),
    ] = None,
    ray_address: Annotated[
        str | None,
        typer.Option(
            help="Running Ray cluster: auto or host:port. Default: RAY_ADDRESS, else this machine.",
            rich_help_panel=_MACHINES,
        ),
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Attack clean and protected photos as a customiser would, and measure what still shows.

    Photos 1-4 of a person, by name, are trained on; the others are the clean reference. OUT then
    holds attacks.parquet, images.parquet, summary.json and page.html. Run it again to go on
    after a stop; nothing is computed twice. No fine-tuned weights are ever written.
    """
    from pipeline.evaluation.people import require_trees
    from pipeline.evaluation.settings import (
        ALL_PHOTOS,
        evaluation_settings,
        parse_judge,
        parse_judges,
    )
    from pipeline.reporting.logs import set_up_logging

    set_up_logging(as_json=False, verbose=verbose)
    own_judges, families = parse_judges(judges or ())
    of_attacks = {
        "attacks": attacks,
        "num_images": images,
        "checkpoint": checkpoint,
        "revision": revision,
        "view": view,
        "adapter": adapter,
        "adapter_encoder": parse_judge(adapter_encoder) if adapter_encoder else None,
        "adapter_kind": adapter_kind,
        "adapter_clip": adapter_clip,
        "adapter_controlnet": adapter_controlnet,
    }
    given: dict[str, object] = {
        "handlings": handlings,
        "remover": None if remover is None else str(remover),
        "max_people": people,
        "skip_people": skip_people,
        "judge_families": families or None,
        "in_loss": in_loss,
    }
    if through is not None:
        refused = {"preset": preset, "set": overrides, "config": config_file}
        _refuse_attacks(of_attacks | refused)
        given["num_trained"] = ALL_PHOTOS
        preset = "core"
    given |= of_attacks
    settings = evaluation_settings(preset, given, overrides or (), config_file, own_judges)
    trees = dict(_named_tree(text) for text in also or ())
    require_trees(clean_uri, (protected_uri, *trees.values()))

    from functools import partial

    from pipeline.evaluation.run import run_evaluation  # seconds: torch
    from pipeline.evaluation.words import outcome_lines
    from pipeline.evaluation.workers import WorkerOptions, ray_workers

    options = WorkerOptions(workers, threads, gpus_per_worker, ray_address=ray_address)
    if through is not None:
        from pipeline.evaluation.look import in_this_process, run_look
        from pipeline.evaluation.words import look_table

        on_ray = (workers, gpus_per_worker, ray_address) != (None, None, None)
        open_workers = (
            partial(ray_workers, options) if on_ray else partial(in_this_process, threads)
        )
        look = run_look(clean_uri, protected_uri, out_uri, through, settings, open_workers, trees)
        print("\n".join(look_table(look)))
        raise typer.Exit(look.exit_code)
    outcome = run_evaluation(
        clean_uri,
        protected_uri,
        out_uri,
        settings,
        partial(ray_workers, options),
        trees,
    )
    print("\n".join(outcome_lines(outcome)))
    raise typer.Exit(outcome.exit_code)


def _refuse_attacks(given: dict[str, Any]) -> None:
    """A look makes no attack, so no option of one may be given and then do nothing."""
    from pipeline.errors import ConfigurationError

    names = {"attacks": "attack", "num_images": "images"}
    options = [
        f"--{names.get(name, name).replace('_', '-')}"
        for name, value in given.items()
        if value is not None and value != []
    ]
    if options:
        raise ConfigurationError(
            f"--through makes no attack: leave {', '.join(options)} out, or --through"
        )


def _named_tree(text: str) -> tuple[str, str]:
    from pipeline.errors import ConfigurationError

    name, separator, tree = text.partition("=")
    if not (separator and name and tree) or name in ("clean", "protected"):
        raise ConfigurationError(
            f"--also {text!r}: expected NAME=TREE with a name other than clean and protected"
        )
    return name, tree

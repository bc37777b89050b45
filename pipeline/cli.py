"""The console script ``dladiff``: which commands there are, and what a person sees when one fails.

Imports only typer, so that ``--help`` is instant; each command imports what it needs when it runs.
"""

import inspect
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from pipeline.commands import config
from pipeline.commands.audit import audit
from pipeline.commands.check import check
from pipeline.commands.convert import convert
from pipeline.commands.evaluate import evaluate
from pipeline.commands.explain import explain
from pipeline.commands.exporter import exporter
from pipeline.commands.forget import forget
from pipeline.commands.gc import gc
from pipeline.commands.k8s_run import k8s_run
from pipeline.commands.models import models
from pipeline.commands.plan import plan
from pipeline.commands.protect import protect
from pipeline.commands.report import report
from pipeline.commands.status import status
from pipeline.commands.verify import verify

_EXIT_CODES = (
    "Exit codes: 0 done; 1 wrong arguments or configuration, a locked OUTPUT, or a bug; 2 more "
    "photos failed than operation.max_failed allows, or verify found something; 3 unfinished "
    "because the environment (store, disk, device) was at fault: run the same command again, it "
    "goes on."
)


class DladiffCommands(TyperGroup):
    """Turns every error into one line with its remedy and an exit code of our contract.

    Click gives wrong arguments the exit code 2, which here means that photos failed.
    """

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> NoReturn:
        """Runs a command and exits with its code; ``standalone_mode`` is always meant."""
        arguments = list(sys.argv[1:] if args is None else args)
        try:
            code = super().main(
                arguments, prog_name, complete_var, False, windows_expand_args, **extra
            )
        except Exception as error:
            if "--verbose" in arguments or "-v" in arguments:
                traceback.print_exc()
            code = _show_error(error)
        sys.exit(code if isinstance(code, int) else 0)


def _show_error(error: Exception) -> int:
    """Prints an error for a person and returns its exit code."""
    from dladiff.errors import DladiffError
    from pipeline.errors import BucketMissing, EnvironmentTrouble, PipelineError

    if (show := getattr(error, "show", None)) is not None:  # click's own: wrong arguments
        show()
        return 1
    if isinstance(error, EnvironmentTrouble) and not isinstance(error, BucketMissing):
        print(f"dladiff: {error.cause}: {error}", file=sys.stderr)
        return 3
    if isinstance(error, PipelineError | DladiffError):
        print(f"dladiff: {error}", file=sys.stderr)
        return 1
    if isinstance(error, OSError) and error.filename and error.strerror:  # a path of a person's
        print(f"dladiff: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    print(
        f"dladiff: unexpected {type(error).__name__}: {str(error).partition(chr(10))[0]}\n"
        "This is a bug: run the command again with --verbose and report what it prints.",
        file=sys.stderr,
    )
    return 1


app = typer.Typer(
    cls=DladiffCommands,
    help="Protects photos of people against fine-tuning and zero-shot customisation of diffusion "
    "models. It raises the cost of misusing exactly these pictures; it is no guarantee.",
    epilog=_EXIT_CODES,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _add(command: Callable[..., None]) -> None:
    """Adds a command by its name; its docstring is its help, rewrapped to the terminal's width."""
    paragraphs = (inspect.getdoc(command) or "").split("\n\n")
    text = "\n\n".join(part.replace("\n", " ") for part in paragraphs)
    app.command(command.__name__.replace("_", "-"), help=text)(command)


for _command in (
    protect,
    plan,
    status,
    verify,
    explain,
    report,
    evaluate,
    audit,
    check,
    models,
    convert,
    gc,
    forget,
    exporter,
    k8s_run,
):
    _add(_command)
app.add_typer(config.app, name="config")


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"dladiff {version('dladiff')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _commands(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


def main() -> NoReturn:
    """Entry point of the console script."""
    app()
    raise AssertionError("the command group always exits")

"""Makes the trees of ``docs/efficacy.md``, attacks them, and prints its tables.

``python -m tools.evaluation.core PHOTOS WORK --part ablations --judge mobilefacenet=FILE`` protects
the attacked photos of the first people in every way of that part, by the installed commands, and
evaluates all trees together. The same command again goes on after a stop; a tree is made once.
Every tree takes some minutes of a core per person and attack: choose parts.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.evaluation.summary import lines_of
from pipeline.models.hashing import file_sha256
from pipeline.storage.store import read_uri
from tools.evaluation.controls import BORROWED
from tools.evaluation.core.conditions import BALANCED, OURS, PARTS, Condition, conditions_of
from tools.evaluation.core.table import markdown_table
from tools.evaluation.protect_with import first_photos

_DLADIFF = str(Path(sys.executable).with_name("dladiff"))
_NUM_ATTACKED = 4
"""Of each person, as an evaluation trains on."""


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; the exit code of the first step that failed, else 0."""
    parser = _parser()
    options = parser.parse_args(arguments)
    options.attack = options.attack or ["dreambooth"]
    options.handling = options.handling or ["none"]
    chosen = conditions_of(options.part or PARTS)
    if options.people < 2 and any(condition.method == BORROWED for condition in chosen):
        parser.error("controls need --people 2 or more: one of them takes another person's change")
    attacked = options.work / "attacked"
    try:
        copy_attacked_photos(options.photos, attacked, options.people)
        for number, condition in enumerate(chosen, 1):
            print(f"tree {number} of {len(chosen)}: {condition.name}", file=sys.stderr)
            make_tree(condition, attacked, options.work)
        subprocess.run(_evaluation(options, chosen), check=True, stdout=sys.stderr)
    except subprocess.CalledProcessError as error:
        print(f"core: this failed, see above: {' '.join(error.cmd)}", file=sys.stderr)
        return int(error.returncode)
    except PipelineError as error:
        print(f"core: {error}", file=sys.stderr)
        return 1
    summary = json.loads((options.work / "results" / "summary.json").read_text())
    lines, seen = lines_of(summary), summary["visibility"]
    labels = {condition.name: condition.label for condition in chosen}
    for attack in options.attack:
        for handling in options.handling:
            table = markdown_table(lines, seen, labels, attack, handling, options.by)
            print(f"\n{attack}, {handling}\n\n{table}")
    return 0


def copy_attacked_photos(source: str, folder: Path, num_people: int) -> None:
    """The first photos of the first people by name, the ones that an evaluation trains on.

    Raises:
        ConfigurationError: If there are none.
    """
    people = first_photos(source, _NUM_ATTACKED)[:num_people]
    shutil.rmtree(folder, ignore_errors=True)  # there may be others from an earlier call
    for photos in people:
        for photo in photos:
            path = folder / photo.output_key.removeprefix("images/").removesuffix(".png")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(read_uri(photo.uri))


def make_tree(condition: Condition, attacked: Path, work: Path) -> None:
    """Protects the attacked photos, unless the very same command did that to the same ones."""
    tree = tree_of(condition, work)
    command = _command(condition, attacked, tree, work)
    files = [path for path in sorted(attacked.rglob("*")) if path.is_file()]
    made_of = [command, {str(path.relative_to(attacked)): file_sha256(path) for path in files}]
    stamp = work / "made" / f"{condition.name}.json"
    if stamp.is_file() and json.loads(stamp.read_text()) == made_of:
        return
    shutil.rmtree(tree, ignore_errors=True)
    subprocess.run(command, check=True, stdout=sys.stderr)
    stamp.parent.mkdir(parents=True, exist_ok=True)
    stamp.write_text(json.dumps(made_of))


def tree_of(condition: Condition, work: Path) -> Path:
    """Where a condition's tree lies."""
    return work / "trees" / condition.name


def _command(condition: Condition, attacked: Path, tree: Path, work: Path) -> list[str]:
    if condition.method is None:
        return [_DLADIFF, "protect", str(attacked), str(tree), *OURS, *condition.options]
    command = [sys.executable, "-m", "tools.evaluation.protect_with", condition.method]
    command += [str(attacked), str(tree), *condition.options]
    ours = ["--ours", str(tree_of(BALANCED, work))] if condition.method == BORROWED else []
    return command + ours


def _evaluation(options: argparse.Namespace, chosen: list[Condition]) -> list[str]:
    work: Path = options.work
    command = [_DLADIFF, "evaluate", options.photos, str(tree_of(BALANCED, work))]
    command += [str(work / "results"), "--preset", "core", "--people", str(options.people)]
    command += ["--images", str(options.images)]
    for name in ("attack", "handling", "judge"):
        for value in getattr(options, name):
            command += [f"--{name}", value]
    for condition in chosen[1:]:
        command += ["--also", f"{condition.name}={tree_of(condition, work)}"]
    return command


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.evaluation.core",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("photos", metavar="PHOTOS", help="folder with <identity>/<photo>")
    parser.add_argument("work", metavar="WORK", type=Path, help="for trees and results; private")
    parser.add_argument("--part", action="append", choices=PARTS, help="repeatable; default: all")
    parser.add_argument("--people", type=int, default=4, help="the first by name (default: 4)")
    parser.add_argument("--images", type=int, default=8, help="per stop (default: 8)")
    parser.add_argument("--attack", action="append", help="repeatable; default: dreambooth")
    parser.add_argument("--handling", action="append", help="repeatable; default: none")
    parser.add_argument("--judge", action="append", default=[], help="as `evaluate --judge`")
    parser.add_argument(
        "--by", action="append", default=[], metavar="JUDGE", help="intervals by whom"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())

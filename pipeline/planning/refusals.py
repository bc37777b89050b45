"""When a plan is not made: what a person has to decide first, with the reason and the remedy."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from pipeline.catalog.photos import Catalog
from pipeline.config import OperationSettings, RunConfig, difference
from pipeline.errors import ConfigurationError
from pipeline.reasons import passed_over_text


def refuse_vanished_input(
    catalog: Catalog, num_gone: int, num_known: int, operation: OperationSettings
) -> None:
    """An unmounted volume looks like a folder without its photos, not like a mass deletion.

    Args:
        num_gone: Photos of INPUT that were there and are nowhere now.
        num_known: Photos of INPUT that were there.
        operation: Says how many may vanish at once.

    Raises:
        ConfigurationError: More are gone than a person has allowed.
    """
    if not num_gone or num_gone <= operation.max_gone * num_known:
        return
    if num_gone <= operation.max_gone_photos and len(catalog.photos):
        return
    raise ConfigurationError(
        f"of {num_known:,} photos that OUTPUT remembers of INPUT {catalog.roots[0]}, {num_gone:,} "
        "are gone: is all of it mounted? If they were deleted on purpose, --max-gone 1 lets them "
        "go (operation.max_gone, a share, and operation.max_gone_photos)"
    )


def refuse_no_photo(catalog: Catalog, knows_input: bool) -> None:
    """A wrong folder must not look like one in which all is done.

    Args:
        knows_input: Whether OUTPUT has a decision on a photo of INPUT: then it is the right folder.

    Raises:
        ConfigurationError: INPUT holds no photo, and never held one that OUTPUT knows.
    """
    if len(catalog.photos) or knows_input:
        return
    if catalog.from_file:
        raise ConfigurationError("the catalog names no photo: it has no rows")
    report = catalog.report
    others = passed_over_text(report.ignored, report.ignored_extensions)
    found = f"all that was found: {others}" if others else "it is empty"
    raise ConfigurationError(
        f"INPUT {catalog.roots[0]} holds no photo; {found}. Expected <identity>/<photo> below it: "
        "is this the right folder, and is it mounted?"
    )


def refuse_another_method(
    decided: Counter[str],
    config: RunConfig,
    method_of_run: Callable[[str], Mapping[str, Any] | None] | None = None,
) -> None:
    """OUTPUT must not become a mixture of methods without anybody having said so.

    Args:
        decided: Photos of INPUT that another method decided on, by run id.
        config: Of this run.
        method_of_run: ``method`` settings of an earlier run by its id; the one that decided on
            most of the photos is shown against this run's.

    Raises:
        ConfigurationError: If there are such photos.
    """
    if not decided:
        return
    ((run_id, _),) = decided.most_common(1)
    before = method_of_run(run_id) if method_of_run else None
    now = config.method.model_dump(mode="json")
    lines = difference(before, now) if before is not None else []
    lines = [line for line in lines if not line.startswith("preset:")]
    shown = "\n".join(f"  {line}" for line in lines) or (
        "  the settings are the same: weight files or this program's method are others"
        if before is not None
        else "  (the settings of that run are not known)"
    )
    raise ConfigurationError(
        f"OUTPUT holds {decided.total()} photos of INPUT that were decided on with another "
        f"method (run {run_id}):\n{shown}\n"
        "Use the same settings, or --on-method-change keep (leave these as they are, do only new "
        "and changed photos) or reprotect (do all of them again)."
    )

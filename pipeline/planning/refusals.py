"""When a plan is not made: what a person has to decide first, with the reason and the remedy."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from pipeline.catalog.photos import Catalog
from pipeline.config import RunConfig, difference
from pipeline.errors import ConfigurationError


def refuse_vanished_input(catalog: Catalog, num_gone: int) -> None:
    """An unmounted volume looks like an empty folder; it must not look like a mass deletion.

    Raises:
        ConfigurationError: INPUT holds no file at all, and photos would be gone.
    """
    report = catalog.report
    if num_gone and not catalog.from_file and not report.num_photos and not report.num_ignored:
        raise ConfigurationError(
            f"INPUT {catalog.roots[0]} is empty, yet OUTPUT remembers {num_gone} photos of it: is "
            "it mounted? If all were deleted on purpose, put any file into it, e.g. .keep"
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

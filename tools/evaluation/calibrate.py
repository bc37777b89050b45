"""Do the cheap proxies of a run rank conditions and people as a measured attack does?

``python -m tools.evaluation.calibrate RESULTS NAME=OUTPUT ...`` joins the effects in
``RESULTS/attacks.parquet`` with what the manifests of the runs say, and prints Spearman's rank
correlation of each proxy. Reads tables only: no photo, no model. Names nobody.
"""

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.stats import rankdata

from dladiff.evaluation.scores import Score, bootstrap, effect
from pipeline.errors import ConfigurationError, PipelineError
from pipeline.evaluation.people import CLEAN
from pipeline.evaluation.rows import AttackRow
from pipeline.manifest_row import CosineColumn, ManifestRow
from pipeline.output.manifest import newest_rows
from pipeline.storage.store import open_store

PROXIES = ("model_likeness", "identity_cosines")
"""Manifest columns; both fall where protection is better."""
_COLUMNS = ("output_uri", *PROXIES)


@dataclass(frozen=True)
class Observation:
    """One person under one condition."""

    identity: str
    condition: str
    effect: float
    """Of this person alone, by the mean of the judges in no loss."""
    proxies: Mapping[str, float]
    """What the manifest holds of ``PROXIES``, averaged over the attacked photos."""


def observations(
    attacks: Sequence[AttackRow],
    manifests: Mapping[str, Sequence[ManifestRow]],
    attack: str,
    handling: str,
) -> list[Observation]:
    """Joins measured effects with proxies by condition and person.

    People of whom the attack shows nothing on clean photos have no effect and are left out.

    Args:
        attacks: Rows of ``attacks.parquet``.
        manifests: Newest rows of the run behind each condition.
        attack: Which attack's effect.
        handling: Under which handling.
    """
    rows = {
        (row.condition, row.identity): row
        for row in attacks
        if (row.attack, row.handling, row.status) == (attack, handling, "done")
    }
    found = []
    for (condition, identity), row in rows.items():
        clean = rows.get((CLEAN, identity))
        if condition not in manifests or clean is None:
            continue
        columns = [_headline(clean, "leak"), _headline(row, "leak"), _headline(row, "floor")]
        measured = float(effect(*(np.array([value]) for value in columns)))
        if math.isfinite(measured):
            proxies = _proxies(manifests[condition], identity, row.num_photos or 0)
            found.append(Observation(identity, condition, measured, proxies))
    return found


def rank_correlation(found: Sequence[Observation], proxy: str) -> Score | None:
    """Spearman's rho of a proxy with the effect over conditions and people; -1 is perfect.

    Args:
        found: Those without the proxy are left out.
        proxy: One of ``PROXIES``.

    Returns:
        With the percentile interval of a bootstrap over people (each drawn with all its
        conditions) and their number; None with fewer than three observations.
    """
    known = [item for item in found if proxy in item.proxies]
    if len(known) < 3:
        return None
    people = sorted({item.identity for item in known})
    pairs = [
        np.array([(o.proxies[proxy], o.effect) for o in known if o.identity == identity])
        for identity in people
    ]

    def rho(drawn: NDArray[np.float64]) -> float:
        joined = np.concatenate([pairs[int(index)] for index in drawn])
        if np.ptp(joined, axis=0).min() == 0:
            return math.nan
        # spearmanr itself is ten times slower, for a p-value that nobody reads.
        return float(np.corrcoef(rankdata(joined, axis=0).T)[0, 1])

    return bootstrap(
        partial(np.apply_along_axis, rho, -1), np.arange(len(people), dtype=np.float64)
    )


def _headline(row: AttackRow, name: Literal["leak", "floor"]) -> float:
    """A score averaged over the judges outside every loss, else in no loss, else over all."""
    in_no_loss = [score for score in row.scores if not score.in_loss]
    outside = [score for score in in_no_loss if not score.kin_of_loss]
    scores = outside or in_no_loss or row.scores
    return fmean(getattr(score, name) for score in scores)


def _proxies(rows: Sequence[ManifestRow], identity: str, num_photos: int) -> dict[str, float]:
    """Averages over the attacked photos: the first protected ones of the person, by URI."""
    own = [row for row in rows if row.identity == identity and row.output_uri is not None]
    attacked = sorted(own, key=lambda row: row.source_uri)[:num_photos]
    known = {}
    for proxy in PROXIES:
        values = [_likeness(getattr(row, proxy) or []) for row in attacked]
        if found := [value for value in values if value is not None]:
            known[proxy] = fmean(found)
    return known


def _likeness(columns: Sequence[CosineColumn]) -> float | None:
    """To the person, by encoders in no loss where there are any."""
    counted = [column for column in columns if column.held_out] or columns
    values = [column.after for column in counted if column.after is not None]
    return fmean(values) if values else None


def report_lines(found: Sequence[Observation]) -> list[str]:
    """The result in words, one line per proxy."""
    num_conditions = len({item.condition for item in found})
    num_people = len({item.identity for item in found})
    lines = [f"{len(found)} observations: {num_conditions} conditions, {num_people} people"]
    for proxy in PROXIES:
        score = rank_correlation(found, proxy)
        num_known = sum(proxy in item.proxies for item in found)
        if score is None or not math.isfinite(score.value):
            lines.append(f"{proxy}: cannot be said from {num_known} observations")
            continue
        interval = "no interval: one person"
        if score.low is not None and score.high is not None:
            interval = f"95 % [{score.low:+.2f}, {score.high:+.2f}]"
        lines.append(f"{proxy}: rho {score.value:+.2f}, {interval}, n = {num_known}")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the correlations; 1 if what was named cannot be read or joined."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", metavar="RESULTS", help="OUT of `dladiff evaluate`")
    parser.add_argument(
        "outputs",
        metavar="NAME=OUTPUT",
        nargs="+",
        help="a condition (protected, or a name given to --also) and the OUTPUT of its run",
    )
    parser.add_argument("--attack", default="dreambooth")
    parser.add_argument("--handling", default="none")
    options = parser.parse_args(arguments)
    try:
        manifests = dict(_named_manifest(text) for text in options.outputs)
        content = open_store(options.results).read("attacks.parquet")
        rows = pq.read_table(pa.BufferReader(content)).to_pylist()
        attacks = [AttackRow.from_columns(row) for row in rows]
        found = observations(attacks, manifests, options.attack, options.handling)
        if not found:
            raise ConfigurationError(
                f"no effect of {options.attack} under {options.handling} of a condition named "
                f"{' or '.join(manifests)} in RESULTS: compare the names with attacks.parquet"
            )
    except FileNotFoundError:
        print("RESULTS holds no attacks.parquet: run `dladiff evaluate` first", file=sys.stderr)
        return 1
    except PipelineError as error:
        print(error, file=sys.stderr)
        return 1
    print("\n".join(report_lines(found)))
    return 0


def _named_manifest(text: str) -> tuple[str, list[ManifestRow]]:
    name, separator, uri = text.partition("=")
    if not (separator and name and uri):
        raise ConfigurationError(f"{text!r}: expected NAME=OUTPUT")
    rows = list(newest_rows(open_store(uri), _COLUMNS))
    if not rows:
        raise ConfigurationError(f"the OUTPUT of {name} has no manifest: only a run's OUTPUT has")
    return name, rows


if __name__ == "__main__":
    sys.exit(main())

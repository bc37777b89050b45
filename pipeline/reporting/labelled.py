"""A registry whose series all carry the label of their OUTPUT, which names nobody."""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.registry import Collector

LABEL = "output"


def output_label(uri: str, chosen: str | None = None) -> str:
    """What the label ``output`` says: the name chosen for OUTPUT, else a piece of its URI's hash.

    Args:
        uri: Of OUTPUT, as ``Store.uri``.
        chosen: ``operation.output_label``.
    """
    return chosen or hashlib.sha256(uri.encode()).hexdigest()[:8]


def chosen_label(run: Mapping[str, Any]) -> str | None:
    """The name that a run gave its OUTPUT, see ``operation.output_label``; None: it gave none.

    Args:
        run: What ``run.json`` holds.
    """
    operation = (run.get("config") or {}).get("operation") or {}
    label = operation.get("output_label")
    return label if isinstance(label, str) else None


class LabelledSeries(Collector):
    """Hands on the series of a registry, each with one label more."""

    def __init__(self, registry: CollectorRegistry, label: str) -> None:
        self._registry, self._label = registry, label

    def collect(self) -> Iterator[Metric]:
        for family in self._registry.collect():
            family.samples = [
                sample._replace(labels={**sample.labels, LABEL: self._label})
                for sample in family.samples
            ]
            yield family

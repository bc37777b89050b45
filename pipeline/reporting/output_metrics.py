"""Metrics of an OUTPUT that hold while nothing runs: times, and whether a run works now.

Times are given as such and not as ages, so that an alert sees them grow between two looks.
"""

import logging
from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from pipeline.errors import PipelineError
from pipeline.output.lock import read_lock
from pipeline.output.service_level import ServiceLevel, read_service_level
from pipeline.reporting.labelled import LABEL, output_label
from pipeline.storage.store import Store

_log = logging.getLogger("dladiff.metrics")

_GAUGES = {
    "dladiff_output_last_run_timestamp_seconds": "End of the last run; 0: there was none.",
    "dladiff_output_last_success_timestamp_seconds": "End of the last run with exit code 0.",
    "dladiff_output_unprotected_since_timestamp_seconds": "Uploads before this are decided.",
    "dladiff_output_last_exit_code": "Exit code of the last run; -1: there was none.",
    "dladiff_output_run_alive": "1 while a run holds OUTPUT's lock and is heard of.",
    "dladiff_output_readable": "0: OUTPUT could not be read, and the other series are missing.",
}


class OutputMetrics(Collector):
    """Reads each OUTPUT anew whenever it is asked: two or three small requests."""

    def __init__(self, stores: Sequence[Store]) -> None:
        self._stores = stores
        self._labels: dict[str, str] = {}
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(self)

    def describe(self) -> list[Metric]:
        """Nothing: a registry must not read a store to take this in."""
        return []

    def collect(self) -> Iterator[Metric]:
        families = {
            name: GaugeMetricFamily(name, text, labels=[LABEL]) for name, text in _GAUGES.items()
        }
        for store in self._stores:
            values = self._values(store)
            label = self._labels.get(store.uri) or output_label(store.uri)
            for name, value in values.items():
                families[name].add_metric([label], value)
        yield from families.values()

    def to_prom_text(self) -> str:
        return generate_latest(self.registry).decode()

    def _values(self, store: Store) -> dict[str, float]:
        try:
            with store.in_haste():  # whoever scrapes waits ten seconds
                level, lock = read_service_level(store), read_lock(store)
        except PipelineError as error:
            _log.warning("%s", error)
            return {"dladiff_output_readable": 0}
        level = level or ServiceLevel(output_label(store.uri))
        self._labels[store.uri] = level.label
        values = (
            level.last_run_at,
            level.last_success_at,
            level.unprotected_since,
            level.last_exit_code,
            float(lock is not None and lock.is_alive),
            1.0,
        )
        return dict(zip(_GAUGES, values, strict=True))

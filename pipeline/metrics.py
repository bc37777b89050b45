"""The driver's Prometheus metrics of one run. Labels: status, stage, layer, cause; never a name."""

from collections.abc import Mapping, Sequence

from pipeline.options import PlanCounts, RunOutcome


class RunMetrics:
    """A ``Reporter`` that keeps numbers in a registry of its own."""

    def started(self, plan: PlanCounts) -> None:
        raise NotImplementedError

    def stage(self, name: str) -> None:
        raise NotImplementedError

    def set_decided(
        self,
        statuses: Mapping[str, int],
        seconds: float,
        gpu_seconds: float = 0.0,
        ages_s: Sequence[float] = (),
    ) -> None:
        raise NotImplementedError

    def deferred(self, cause: str, num_photos: int = 0) -> None:
        raise NotImplementedError

    def message(self, text: str) -> None:
        raise NotImplementedError

    def finished(self, outcome: RunOutcome) -> None:
        raise NotImplementedError

    def serve(self, port: int) -> int:
        """Serves the metrics over HTTP until the process ends.

        Returns:
            The port, which differs from ``port`` where that is 0.

        Raises:
            ConfigurationError: If the port is taken.
        """
        raise NotImplementedError

    def to_prom_text(self) -> str:
        """The metrics in Prometheus' text format, for ``runs/<id>/metrics.prom``."""
        raise NotImplementedError

"""The errors of the pipeline, as a tree.

    PipelineError
    ├── ConfigurationError     refused before work begins; exit 1
    │   └── BrokenSetup        a worker protects no photo at all, not even the built-in one
    ├── LockHeldError          another run works on OUTPUT; exit 1
    ├── PhotoError             one photo cannot be used: its row says why, the others go on
    └── EnvironmentTrouble     never committed: the set is deferred; exit 3 if it stays
        ├── StoreDenied        credentials or permissions
        ├── StoreThrottled     after back-off
        ├── StoreUnreachable   network, endpoint
        │   └── BucketMissing  no such bucket; exit 1, since running again does not make one
        ├── DiskFull
        ├── DeviceFault        CUDA error; the worker leaves
        ├── OutOfMemory        at micro-batch 1
        └── ClusterUnreachable Kubernetes' API (``dladiff k8s-run``)

Troubles of a set are whatever else its computation raises.
"""

from pipeline.reasons import Reason


class PipelineError(Exception):
    """Base of all errors raised on purpose by this package; its text is meant for a person."""


class ConfigurationError(PipelineError):
    """Arguments, settings, paths or models are wrong; nothing was done."""


class BrokenSetup(ConfigurationError):  # noqa: N818 - what it is
    """A worker's models protect nothing: no photo is to blame, and none gets a row."""


class LockHeldError(PipelineError):
    """Another run holds OUTPUT's lock."""


class PhotoError(PipelineError):
    """One photo cannot be used; ``reason`` says why."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


class EnvironmentTrouble(PipelineError):  # noqa: N818 - the field's word, see pipeline.md
    """The surroundings failed, not the photo and not the set."""

    cause = "environment"


class StoreDenied(EnvironmentTrouble):
    """The object store refused: credentials or permissions."""

    cause = "store_denied"


class StoreThrottled(EnvironmentTrouble):
    """The object store still throttles after back-off."""

    cause = "store_throttled"


class StoreUnreachable(EnvironmentTrouble):
    """The object store, or the bucket, does not answer."""

    cause = "store_unreachable"


class BucketMissing(StoreUnreachable):
    """There is no bucket of this name."""


class DiskFull(EnvironmentTrouble):
    """No space is left where something must be written."""

    cause = "disk_full"


class DeviceFault(EnvironmentTrouble):
    """The accelerator reported an error; its process must not be trusted any more."""

    cause = "device_fault"


class OutOfMemory(EnvironmentTrouble):
    """Memory ran out with the smallest possible batch."""

    cause = "out_of_memory"


class ClusterUnreachable(EnvironmentTrouble):
    """The API of the Kubernetes cluster does not answer, or what it held is gone."""

    cause = "cluster_unreachable"


def trouble_named(cause: str | None) -> EnvironmentTrouble:
    """The trouble whose ``cause`` another process wrote down."""
    for kind in EnvironmentTrouble.__subclasses__():
        if kind.cause == cause:
            return kind(cause)
    return EnvironmentTrouble(cause or EnvironmentTrouble.cause)

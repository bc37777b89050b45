"""What OUTPUT remembers of photos, for tests of all that reads the manifest."""

import dataclasses
from typing import Any

from pipeline.output.manifest import SourceState
from pipeline.records import SourcePhoto

METHOD = "method-1"
"""Digest of the method that decided, where a test says nothing else."""


def state_of(photo: SourcePhoto, **changes: Any) -> SourceState:
    """As the manifest remembers a photo that was protected as it is now."""
    state = SourceState(
        identity=photo.identity,
        version=photo.version,
        sha256="sha of the original",
        method_digest=METHOD,
        status="protected",
        reason=None,
        output_key=photo.output_key,
        output_sha256="sha of the output",
        run_id="run-1",
        committed_at="2026-01-01T00:00:00+00:00",
    )
    return dataclasses.replace(state, **changes)

"""The time as OUTPUT writes it down."""

from datetime import UTC, datetime


def utc_now() -> str:
    """UTC, ISO 8601, always with microseconds and ``+00:00``, so that texts sort as times."""
    return datetime.now(UTC).isoformat(timespec="microseconds")

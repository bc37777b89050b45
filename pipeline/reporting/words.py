"""Numbers as a person reads them: durations, sizes, counts."""


def format_duration(seconds: float) -> str:
    """``45 s``, ``3 min 20 s``, ``5 h 02 min``, ``3 d 4 h``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def format_bytes(number: float) -> str:
    """``512 B``, ``3.4 MB``: decimal units, three digits."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if number < 1000 or unit == "TB":
            break
        number /= 1000
    return f"{number:.0f} {unit}" if unit == "B" or number >= 100 else f"{number:.1f} {unit}"


def format_count(number: int, one: str, many: str | None = None) -> str:
    """``1 photo``, ``1,204 photos``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"

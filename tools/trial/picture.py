"""A picture of Prometheus' own graphs, by a browser without a window."""

import shutil
import subprocess
import sys
import urllib.parse
from pathlib import Path

GRAPHS = (
    "sum by (status) (increase(dladiff_decided_photos_total[1m]))",
    "max(dladiff_oldest_unprotected_seconds)",
)
_WIDTH_PX, _HEIGHT_PX = 1000, 740
"""Of one graph with its form. A window lower than the page would show it scrolled."""


def take_picture(prometheus_url: str, folder: Path, target: Path) -> None:
    """Writes a PNG of what the last minutes looked like; says so where there is no browser.

    Args:
        folder: For what the browser keeps.
    """
    chromium = shutil.which("chromium")
    if chromium is None:
        print("no picture: no chromium (Debian: apt-get install chromium)", file=sys.stderr)
        return
    graphs = {
        f"g{number}.{name}": value
        for number, expression in enumerate(GRAPHS)
        for name, value in (("expr", expression), ("tab", "0"), ("range_input", "5m"))
    }
    # Debian's Prometheus has the classic pages only, others have both.
    url = f"{prometheus_url}/classic/graph?{urllib.parse.urlencode(graphs)}"
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [f"--user-data-dir={folder / 'browser'}", "--virtual-time-budget=10000"]
    command += [f"--window-size={_WIDTH_PX},{len(GRAPHS) * _HEIGHT_PX}"]
    command += [f"--screenshot={target.resolve()}", url]
    subprocess.run(command, check=True, timeout=120, capture_output=True)

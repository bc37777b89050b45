"""A picture of Prometheus' own graphs, by a browser without a window."""

import html
import shutil
import subprocess
import sys
import urllib.parse
from pathlib import Path

GRAPHS = (
    "max(dladiff_backlog_photos)",
    "max(dladiff_oldest_unprotected_seconds)",
    "sum by (status) (increase(dladiff_decided_photos_total[1m]))",
    "sum by (stage) (ray_dladiff_stage_seconds_sum)",
)
_WIDTH_PX, _HEIGHT_PX = 620, 600
"""Of one graph with its form."""


def take_picture(prometheus_url: str, folder: Path, target: Path) -> None:
    """Writes a PNG of what the last minutes looked like; says so where there is no browser.

    Args:
        folder: For the page of graphs and what the browser keeps.
    """
    chromium = shutil.which("chromium")
    if chromium is None:
        print("no picture: no chromium (Debian: apt-get install chromium)", file=sys.stderr)
        return
    page = folder / "graphs.html"
    page.write_text(_page(prometheus_url))
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [f"--user-data-dir={folder / 'browser'}", "--virtual-time-budget=10000"]
    command += [f"--window-size={2 * _WIDTH_PX},{len(GRAPHS) // 2 * _HEIGHT_PX}"]
    command += [f"--screenshot={target.resolve()}", page.as_uri()]
    subprocess.run(command, check=True, timeout=120, capture_output=True)


def _page(prometheus_url: str) -> str:
    """All graphs side by side, as Prometheus draws them."""
    frames = []
    for expression in GRAPHS:
        graph = {"g0.expr": expression, "g0.tab": "0", "g0.range_input": "5m"}
        # Debian's Prometheus has the classic pages only, others have both.
        url = f"{prometheus_url}/classic/graph?{urllib.parse.urlencode(graph)}"
        frames.append(f'<iframe src="{html.escape(url)}"></iframe>')
    style = f"width: {_WIDTH_PX}px; height: {_HEIGHT_PX}px; border: 0; float: left"
    return f"<style>body {{margin: 0}} iframe {{{style}}}</style>{''.join(frames)}"

"""The badge of a run: a small SVG with the headline's count, for a README."""

from __future__ import annotations

from html import escape

from harness.report.model import Report
from harness.report.standing import BAD, Standing

LABEL = "harness"
WIDTH_OF_CHARACTER, PADDING, HEIGHT = 7, 6, 20  # [px], of 11 px Verdana or what stands for it
GREEN, RED, GREY = "#2c7a3f", "#b3261e", "#5f6368"  # each at least 4.5 to 1 under white text


def render_badge(report: Report) -> str:
    """Return the badge: how many cases passed, or how many are bad; grey where nothing was judged."""
    standings = [row.standing for row in report.rows]
    n_bad = sum(standing in (*BAD, Standing.DID_NOT_RUN) for standing in standings)
    n_good = sum(standing in (Standing.PASSED, Standing.IMPROVED, Standing.EXPECTED_LOSS) for standing in standings)
    if n_bad:
        return _svg(f"{n_bad} of {len(standings)} bad", RED)
    return _svg(f"{n_good} of {len(standings)} passed", GREEN if n_good else GREY)


def _svg(text: str, colour: str) -> str:
    left, right = (len(part) * WIDTH_OF_CHARACTER + 2 * PADDING for part in (LABEL, text))
    style = 'fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11" text-anchor="middle"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="{HEIGHT}" role="img" '
        f'aria-label="{LABEL}: {escape(text)}"><title>{LABEL}: {escape(text)}</title>'
        f'<rect width="{left}" height="{HEIGHT}" fill="{GREY}"/>'
        f'<rect x="{left}" width="{right}" height="{HEIGHT}" fill="{colour}"/>'
        f'<g {style}><text x="{left / 2:g}" y="14">{LABEL}</text>'
        f'<text x="{left + right / 2:g}" y="14">{escape(text)}</text></g></svg>\n'
    )

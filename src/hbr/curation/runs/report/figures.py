"""Histograms and the funnel as inline SVG; colours come from the page's style sheet."""

from __future__ import annotations

from xml.sax.saxutils import escape

import numpy as np

from hbr.curation.runs.report.contents import BINS, Histogram

WIDTH, HEIGHT = 420, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 6, 6, 26, 24


def histogram_svg(histogram: Histogram, title: str) -> str:
    """All values in a quiet colour, those of kept crops before them, the threshold as a line."""
    across = (WIDTH - _LEFT - _RIGHT) / BINS
    down = HEIGHT - _TOP - _BOTTOM
    most = max(int(histogram.all.max()), 1)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" class="histogram" '
        f'aria-label="{escape(title, {chr(34): "&quot;"})}">'
    ]
    for kind, values in (("all", histogram.all), ("kept", histogram.kept)):
        bars = []
        for i, n in enumerate(values.tolist()):
            if n:
                tall = max(n / most * down, 1)
                x, y = _LEFT + i * across, _TOP + down - tall
                bars.append(f"M{x:.1f} {y:.1f}h{across - 0.8:.1f}v{tall:.1f}h-{across - 0.8:.1f}z")
        parts.append(f'<path class="{kind}" d="{"".join(bars)}"/>')
    base = _TOP + down
    parts.append(f'<path class="axis" d="M{_LEFT} {base}H{WIDTH - _RIGHT}"/>')
    for value in _ticks(histogram):
        x = _across(histogram, value)
        parts.append(f'<path class="axis" d="M{x:.1f} {base}v4"/>')
        anchor = "start" if x < 30 else "end" if x > WIDTH - 30 else "middle"
        parts.append(f'<text x="{x:.1f}" y="{base + 17}" text-anchor="{anchor}">{value:g}</text>')
    if histogram.threshold is not None:
        x = _across(histogram, histogram.threshold)
        sign = "≥" if histogram.better == "higher" else "≤"
        right = x > WIDTH - 110
        parts.append(f'<path class="threshold" d="M{x:.1f} {_TOP - 8}V{base}"/>')
        parts.append(
            f'<text class="threshold" x="{x - 6 if right else x + 6:.1f}" y="{_TOP - 10}" '
            f'text-anchor="{"end" if right else "start"}">{sign} {histogram.threshold:g}</text>'
        )
    return "".join([*parts, "</svg>"])


def _across(histogram: Histogram, value: float) -> float:
    low, high = float(histogram.edges[0]), float(histogram.edges[-1])
    if histogram.logarithmic:
        value, low, high = (float(np.log(max(v, 1e-9))) for v in (value, low, high))
    part = min(max((value - low) / (high - low), 0), 1)
    return _LEFT + part * (WIDTH - _LEFT - _RIGHT)


def _ticks(histogram: Histogram) -> list[float]:
    """Round values, some four to six of them."""
    low, high = float(histogram.edges[0]), float(histogram.edges[-1])
    if histogram.logarithmic:
        decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
        for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7)):
            ticks = [s * 10.0**d for d in decades for s in steps if low <= s * 10.0**d <= high]
            if len(ticks) >= 4:
                break
        return ticks
    raw = (high - low) / 5
    size = 10.0 ** np.floor(np.log10(raw))
    step = next(s * size for s in (1, 2, 2.5, 5, 10) if s * size >= raw * 0.999)
    first = np.ceil(low / step - 1e-9)
    count = int(np.floor(high / step + 1e-9) - first) + 1
    return [float(f"{(first + i) * step:.6g}") + 0.0 for i in range(count)]

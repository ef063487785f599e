"""A bar chart as SVG, without a plotting library."""

from __future__ import annotations

import math
from html import escape


def bars(values: dict[str, float], title: str, marked: str) -> str:
    """Horizontal bars on a logarithmic scale; ``marked`` names whose bars stand out."""
    shown = sorted(((v, k) for k, v in values.items() if v > 0), key=lambda pair: pair[0])
    if not shown:
        return '<svg xmlns="http://www.w3.org/2000/svg"/>\n'
    low = math.log10(shown[0][0]) - 0.6
    span = math.log10(shown[-1][0]) - low
    height = 26
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="720" height="{height * len(shown) + 44}" '
        'font-family="system-ui, sans-serif" font-size="13" role="img" '
        f'aria-label="{escape(title)}">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        f'<text x="12" y="22" font-weight="600" fill="#1b1f24">{escape(title)}</text>',
    ]
    for row, (value, name) in enumerate(shown):
        y = 36 + row * height
        width = 400 * (math.log10(value) - low) / span
        colour = "#0a7d6c" if name.startswith(marked) else "#9aa4af"
        lines.append(f'<text x="12" y="{y + 15}" fill="#1b1f24">{escape(name)}</text>')
        lines.append(
            f'<rect x="200" y="{y + 2}" width="{width:.1f}" height="18" rx="3" fill="{colour}"/>'
        )
        lines.append(f'<text x="{206 + width:.1f}" y="{y + 15}" fill="#1b1f24">{value:,.0f}</text>')
    return "\n".join([*lines, "</svg>\n"])

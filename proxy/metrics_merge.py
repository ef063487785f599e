"""One exposition out of several workers' expositions.

Owns: the merge of texts that :mod:`proxy.metrics` wrote. Must never: guess how
a metric merges (the catalogue says it), or fail the scrape for one bad line.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from proxy.metrics_catalogue import CATALOGUE, Metric


def merge_expositions(texts: Sequence[str]) -> str:
    """Merge by sum, maximum or minimum, as the catalogue says of each metric.

    Parameters
    ----------
    texts
        Expositions in Prometheus' text format 0.0.4, of the same version.

    Returns
    -------
    str
        One exposition, families in order of first appearance.
    """
    if len(texts) == 1:
        return texts[0]
    heads: dict[str, list[str]] = {}
    samples: dict[str, dict[str, float]] = {}
    for text in texts:
        family = ""
        metric: Metric | None = None
        for line in text.split("\n"):
            if line.startswith("# "):
                family = line.split(" ", 3)[2]
                metric = CATALOGUE.get(family)
                lines = heads.setdefault(family, [])
                if line not in lines and len(lines) < 2:
                    lines.append(line)
                continue
            sample, _, number = line.rpartition(" ")
            if not sample or metric is None:
                continue
            try:
                value = float(number)
            except ValueError:
                continue
            known = samples.setdefault(family, {})
            if sample not in known:
                known[sample] = value
            elif metric.merge == "max":
                known[sample] = max(known[sample], value)
            elif metric.merge == "min":
                known[sample] = min(known[sample], value)
            else:
                known[sample] += value
    lines = []
    for family, head in heads.items():
        lines += head
        lines += (f"{name} {_number(value)}" for name, value in samples.get(family, {}).items())
    return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return repr(value)

"""`syncdiff-eval --list-metrics`: every metric, its columns, what it needs, which protocols have it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from syncdiff.evaluate.metrics.base import Metric, Value
from syncdiff.evaluate.metrics.registry import METRICS, Entry
from syncdiff.evaluate.protocol import Protocol, load_protocol, protocol_names
from syncdiff.evaluate.report.tables import ARROWS


@dataclass(frozen=True)
class MetricLine:
    """A metric in words. protocols: their names, in brackets where they compute it only when asked for."""

    name: str
    columns: str
    needs: str
    protocols: str
    about: str


def metric_lines(entries: Mapping[str, Entry] = METRICS) -> Iterator[MetricLine]:
    """One line for each metric, in the registry's order."""
    protocols = [load_protocol(name) for name in protocol_names()]
    for name, entry in entries.items():
        metric = entry.metric
        needs = ["reference"] * metric.needs_reference + ["sound"] * metric.needs_sound
        needs += ["transcript"] * metric.needs_transcript
        needs += entry.weights(Protocol())
        yield MetricLine(
            name,
            "; ".join(_column(value) for value in metric.values) + ("" if metric.per_clip else " (of a set)"),
            ", ".join(needs),
            ", ".join(
                p.name if name in p.metrics else f"({p.name})"
                for p in protocols
                if name in (*p.metrics, *p.on_request)
            ),
            _about(metric),
        )


def metric_list() -> str:
    """All of them, two lines each: what it says; its columns, needs and protocols."""
    return "\n".join(
        f"{line.name}: {line.about}\n"
        f"    {line.columns}" + (f" | needs {line.needs}" if line.needs else "") + f" | {line.protocols}"
        for line in metric_lines()
    )


def _column(value: Value) -> str:
    unit = f", {value.unit}" if value.unit else ""
    return f"{value.title} {ARROWS[value.better]}{unit}".rstrip()


def _about(metric: type[Metric]) -> str:
    module = sys.modules[metric.__module__]
    return (metric.about or (module.__doc__ or "").partition("\n")[0]).rstrip(".")

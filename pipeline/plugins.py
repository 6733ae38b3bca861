"""What other installed packages bring: trackers, extractors and metrics, by Python's entry points.

A package names what it brings in its pyproject.toml, under `[project.entry-points."syncdiff.trackers"]` and
the like. Nothing of it is imported until a user asks for it by its name.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

TRACKERS, EXTRACTORS, METRICS = "syncdiff.trackers", "syncdiff.extractors", "syncdiff.metrics"


class PluginError(ValueError):
    """A name that no installed package brings, or one that cannot be loaded; the message says which."""


@dataclass(frozen=True)
class Plugin:
    """What was loaded, and where it is from: package and version, for records."""

    value: Any
    origin: str


def plugin_names(group: str) -> list[str]:
    """Names of what is installed, without importing any of it."""
    return sorted({point.name for point in entry_points(group=group)})


def plugin_origin(group: str, name: str) -> str:
    """Package and version of what is installed under this name; empty where it is none."""
    return ", ".join(sorted({_origin(point) for point in entry_points(group=group, name=name)}))


def load_plugin(group: str, name: str) -> Plugin:
    """Import what a package brings under this name. Raises PluginError."""
    points = {point.value: point for point in entry_points(group=group, name=name)}
    if len(points) != 1:
        names = ", ".join(plugin_names(group)) or "none"
        what = "several packages bring" if points else "no installed package brings"
        raise PluginError(f"{what} {name!r} under {group}; there are: {names}")
    (point,) = points.values()
    try:
        return Plugin(point.load(), _origin(point))
    except Exception as error:  # of somebody else's package: said with its name
        reason = f"{type(error).__name__}: {error}"
        raise PluginError(f"{name!r} ({_origin(point)}) cannot be loaded: {reason}") from error


def _origin(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value

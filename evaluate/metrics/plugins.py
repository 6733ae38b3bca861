"""Metrics that are not ours: of an installed package, or of a file that the user names.

Both run as they are, so they are loaded only when asked for by name: `--metrics NAME` for what a package
brings under the entry points `syncdiff.metrics`, `--metric-file FILE` for a file. Records and cache know them
by package and version, or by the file's hash.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType

from syncdiff.evaluate.metrics.base import Metric
from syncdiff.evaluate.metrics.registry import METRICS, Entry
from syncdiff.pipeline import plugins
from syncdiff.pipeline.config import ConfigError
from syncdiff.pipeline.file_hash import sha256_file


def all_entries(names: Iterable[str], files: Sequence[Path]) -> Mapping[str, Entry]:
    """Our metrics, those of the files, and of installed packages those whose name is among `names`.

    Raises ConfigError for a file without metrics or that cannot be loaded, and for a name that is taken.
    """
    entries = dict(METRICS)
    for file in files:
        for name, entry in file_entries(file).items():
            if name in entries:
                raise ConfigError(f"{file}: there is a metric {name!r} already; give yours another name")
            entries[name] = entry
    installed = plugins.plugin_names(plugins.METRICS)
    for name in names:
        if name not in entries and name in installed:
            entries[name] = _package_entry(name)
    columns = [value.name for entry in entries.values() for value in entry.metric.values]
    twice = sorted({column for column in columns if columns.count(column) > 1})
    if twice:
        raise ConfigError(f"two metrics have the value {twice[0]!r}; give yours another name")
    return entries


def file_entries(file: Path) -> dict[str, Entry]:
    """The metrics that a Python file defines, by name. It is run. Raises ConfigError."""
    try:
        digest = sha256_file(file)
        module = _run_file(file, digest)
    except Exception as error:  # whatever the user's own code raises
        raise ConfigError(f"--metric-file {file}: {type(error).__name__}: {error}") from error
    kinds = [
        kind
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, Metric) and kind.__module__ == module.__name__ and not inspect.isabstract(kind)
    ]
    if not kinds:
        raise ConfigError(f"--metric-file {file}: it defines no complete subclass of Metric")
    return {kind.name: _entry(kind, f"{file.name} sha256:{digest}") for kind in kinds}


def _run_file(file: Path, digest: str) -> ModuleType:
    name = f"syncdiff_metric_file_{digest[:16]}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ValueError("no Python file (.py)")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look their module up
    spec.loader.exec_module(module)
    return module


def _package_entry(name: str) -> Entry:
    try:
        plugin = plugins.load_plugin(plugins.METRICS, name)
    except plugins.PluginError as error:
        raise ConfigError(str(error)) from error
    if not (inspect.isclass(plugin.value) and issubclass(plugin.value, Metric) and plugin.value.name == name):
        raise ConfigError(f"{name!r} of {plugin.origin} is no subclass of Metric of that name")
    return _entry(plugin.value, plugin.origin)


def _entry(kind: type[Metric], origin: str) -> Entry:
    return Entry(kind, lambda tools, protocol: kind(), origin=origin)

"""Which metrics an evaluation runs, with which weights, and why it does not run others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from syncdiff.evaluate.protocol import Protocol
from syncdiff.evaluate.records import NotComputed
from syncdiff.evaluate.registry import METRICS, Entry
from syncdiff.pipeline.config import ConfigError
from syncdiff.pipeline.weights import WeightFile, WeightsError, require


@dataclass(frozen=True)
class Chosen:
    """Metrics to run, in the registry's order; the weights they need; and those that cannot run."""

    metrics: tuple[str, ...]
    weights: tuple[WeightFile, ...]
    not_computed: tuple[NotComputed, ...]


def choose_metrics(
    protocol: Protocol,
    wanted: Sequence[str] | None = None,
    *,
    has_references: bool = True,
    allow_unverified: bool = False,
    entries: Mapping[str, Entry] = METRICS,
) -> Chosen:
    """The metrics of a protocol, or those of them that are wanted.

    Raises ConfigError for a name that no metric has.
    """
    names = protocol.metrics if wanted is None else tuple(dict.fromkeys(wanted))
    for name in (*protocol.metrics, *names):
        if name not in entries:
            close = get_close_matches(name, entries, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(entries)}"
            raise ConfigError(f"no metric {name!r}; {hint}")
    chosen: list[str] = []
    files: dict[str, WeightFile] = {}
    not_computed = []
    for name in sorted(names, key=list(entries).index):
        reason = _why_not(name, entries[name], protocol, has_references)
        if reason is None:
            try:
                needed = entries[name].weights(protocol)
                files |= {file: require(file, allow_unverified=allow_unverified) for file in needed}
                chosen.append(name)
            except WeightsError as error:
                reason = ("no-weights", str(error))
        if reason is not None:
            not_computed.append(NotComputed(name, *reason))
    return Chosen(tuple(chosen), tuple(files.values()), tuple(not_computed))


def _why_not(name: str, entry: Entry, protocol: Protocol, has_references: bool) -> tuple[str, str] | None:
    if name not in protocol.metrics:
        return "not-in-protocol", f"protocol {protocol.name} ({protocol.about}) does not have it"
    if entry.metric.needs_reference and not has_references:
        return "no-reference", "it compares with references; give --reference DIR, --data STORE or a --list"
    return None

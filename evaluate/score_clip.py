"""One clip, scored by every metric: hashed, looked up in the cache, measured where it is new, and kept.

Whatever goes wrong belongs to one clip and one metric, and is recorded there.
"""

from __future__ import annotations

import hashlib
import json
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import torch

from syncdiff.evaluate.cache import (
    Cache,
    Inputs,
    Key,
    file_digest,
    is_lasting,
    load_entry,
    read_inputs,
)
from syncdiff.evaluate.clip_pair import ClipPair, Footage
from syncdiff.evaluate.format_mismatch import format_mismatch, measure_format
from syncdiff.evaluate.metrics.base import Metric, Statistics
from syncdiff.evaluate.metrics.plugins import all_entries
from syncdiff.evaluate.metrics.registry import Entry, Tools
from syncdiff.evaluate.pairing.dataset_references import StoredClip, write_stored
from syncdiff.evaluate.protocol import Protocol
from syncdiff.evaluate.records import Case, Failure, FormatMismatch, MediaFormat
from syncdiff.evaluate.reencode import Codecs, reencode
from syncdiff.pipeline.faces.backend import FaceBackend
from syncdiff.pipeline.faces.track import make_backend
from syncdiff.pipeline.media.probe import probe
from syncdiff.pipeline.plugins import TRACKERS, PluginError, plugin_origin
from syncdiff.pipeline.records import FPS, ClipError
from syncdiff.pipeline.store.manifest import package_version, versions
from syncdiff.pipeline.weights.published import WeightFile, WeightsError

FORMAT = "form"  # the name under which sizes and lengths lie in the cache
MEDIA = "media"  # and the one of codecs
LOAD = "load"
_PACKAGES = (
    "torch",
    "torchvision",
    "scikit-image",
    "lpips",
    "pytorch-fid",
    "syncnet-python",
    "face-recognition-models",
    "face-alignment",
)


class LoadError(Exception):
    """A metric cannot be made here; its cause says why."""


class StorageError(Exception):
    """The cache cannot be written, or lost what was in it; the run cannot go on."""


@dataclass(frozen=True)
class Work:
    """What a worker needs to know besides its clip.

    metrics, metric_files: see `syncdiff.evaluate.metrics.plugins.all_entries`.
    """

    protocol: Protocol
    weights: tuple[WeightFile, ...]
    cache: Path
    metrics: tuple[str, ...] = ()
    metric_files: tuple[Path, ...] = ()
    reencode: Codecs | None = None

    def entries(self) -> Mapping[str, Entry]:
        """All metrics by name, those of the user's files and packages too."""
        return all_entries(self.metrics, self.metric_files)


@dataclass(frozen=True)
class Task:
    """A case, the metrics to score it by, and the stored references that are to be written first."""

    case: Case
    metrics: tuple[str, ...]
    rows: tuple[tuple[Path, StoredClip], ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What one metric made of one case. entry: its statistics in the cache. new: measured in this run.

    seconds: what it took; decoding and faces, which metrics share, are in those of the first that asked.
    """

    metric: str
    settings: Mapping[str, Any]
    values: Mapping[str, float]
    failures: tuple[Failure, ...]
    entry: Path | None = None
    new: bool = False
    seconds: float = 0.0


@dataclass(frozen=True)
class CaseResult:
    """All outcomes of a case, one for each metric of its task. frames: measured now, for showing progress.

    media: of the generated file as it came, whatever `Work.reencode` made of it.
    """

    case: Case
    mismatch: FormatMismatch | None
    outcomes: tuple[Outcome, ...]
    frames: int
    media: MediaFormat | None = None


def computing_versions(device: str) -> dict[str, str]:
    """Versions of all that lies between a file and its figures, and the kind of device."""
    packages = {name: package_version(name) for name in _PACKAGES}
    return {**versions(), **packages, "device": device}


class Scorer:
    """Scores cases. Holds the networks of a process, each loaded when it is first needed."""

    def __init__(self, work: Work, entries: Mapping[str, Entry] | None = None) -> None:
        self._work = work
        self._entries = work.entries() if entries is None else entries
        self._cache = Cache(work.cache)
        self._metrics: dict[str, Metric | LoadError] = {}
        self.device = "cuda" if torch.cuda.is_available() else "cpu"

    @cached_property
    def _versions(self) -> dict[str, str]:
        return computing_versions(self.device)

    @cached_property
    def _reference_features(self) -> Path:
        """Folder for features of references by these weights, on this device, with these versions."""
        weights = {file.entry.name: file.sha256 for file in self._work.weights}
        facts = json.dumps({"weights": weights, "versions": self._versions}, sort_keys=True)
        return self._work.cache / "reference-features" / hashlib.sha256(facts.encode()).hexdigest()[:16]

    def score(
        self,
        task: Task,
        on_metric: Callable[[str], None] | None = None,
        refused: Mapping[str, ClipError] | None = None,
    ) -> CaseResult:
        """Score a case by all metrics of its task.

        on_metric: told the name of each before it is tried. refused: metrics not to be tried, and why.

        Raises StorageError, and nothing else.
        """
        case, refused = task.case, refused or {}
        try:
            for path, row in task.rows:
                write_stored(row, path)
            media = self._media(case)
            if self._work.reencode is not None:
                case = self._reencoded(case, self._work.reencode)
            inputs = read_inputs(case)
        except ClipError as error:
            return failed_case(task, error)
        except OSError as error:
            raise StorageError(f"{case.reference} could not be written: {error}") from error
        pair = self._pair(case)
        outcomes = []
        for name in task.metrics:
            if on_metric is not None:
                on_metric(name)
            started = time.perf_counter()
            if name in refused:
                outcome = _failed(case, name, refused[name])
            else:
                outcome = self._outcome(name, case, pair, inputs)
            outcomes.append(replace(outcome, seconds=time.perf_counter() - started))
        frames = _frames(pair) if any(outcome.new for outcome in outcomes) else 0
        return CaseResult(task.case, self._mismatch(case, pair, inputs), tuple(outcomes), frames, media)

    def _reencoded(self, case: Case, codecs: Codecs) -> Case:
        """The generated video by these codecs, and with it its sound where that is scored."""
        copy = reencode(case.generated, codecs, self._work.cache / "reencoded")
        return replace(case, generated=copy, sound=copy if case.sound == case.generated else case.sound)

    def _media(self, case: Case) -> MediaFormat | None:
        """How the generated file is coded; None where it cannot be read, which each metric will say."""
        try:
            facts = {"metric": MEDIA, "file": file_digest(case.generated), "versions": self._versions}
            kept = self._cache.load(Key(MEDIA, facts))
            if kept is None or isinstance(kept, ClipError):
                info = probe(case.generated)
                coded = (info.container, info.video_codec, info.video_kbps, info.source_fps)
                text = json.dumps([*coded, info.audio_codec, info.audio_kbps])
                kept = {"json": np.frombuffer(text.encode(), np.uint8)}
                self._cache.save(Key(MEDIA, facts), kept)
        except ClipError:
            return None
        except OSError as error:
            raise StorageError(f"{self._cache.folder} cannot be written: {error}") from error
        return MediaFormat(case.method, case.clip, *json.loads(kept["json"].tobytes()))

    def pool(self, name: str, entries: Sequence[Path]) -> dict[str, float]:
        """A metric's values over the clips whose statistics these are. Raises what the metric raises."""
        return self._metric(name).pool(map(_load_statistics, entries))

    def _metric(self, name: str) -> Metric:
        """The metric, loaded once. Raises LoadError, each time the same unless memory ran short."""
        if name not in self._metrics:
            weights = {file.entry.name: file for file in self._work.weights}
            tools = Tools(self.device, weights, self._reference_features)
            try:
                self._metrics[name] = self._entries[name].make(tools, self._work.protocol)
            except (MemoryError, torch.OutOfMemoryError) as error:
                raise LoadError(_describe(error)) from error
            except Exception as error:  # not hidden: it is raised below and recorded for each clip
                used = self._entries[name].weights(self._work.protocol)
                files = ", ".join(str(weights[file].path) for file in used if file in weights)
                made_of = f"{files}: no {name} can be made of this: " if files else ""
                self._metrics[name] = LoadError(made_of + _describe(error))
        metric = self._metrics[name]
        if isinstance(metric, LoadError):
            raise metric
        return metric

    @cached_property
    def _backend(self) -> FaceBackend:
        """The face tracker. Raises ClipError("track", "no-weights")."""
        try:
            return make_backend(self._work.protocol.tracker)
        except (WeightsError, PluginError) as error:
            raise ClipError("track", "no-weights", str(error), transient=True) from error

    def _pair(self, case: Case) -> ClipPair:
        """Roles that one file has are one `Footage`, which is decoded once."""
        paths = (case.generated, case.sound, case.reference)
        square = self._work.protocol.pixels == "square"
        footage = {
            path: Footage(path, lambda: self._backend, square_pixels=square)
            for path in paths
            if path is not None
        }
        reference = None if case.reference is None else footage[case.reference]
        sound = footage[case.sound]
        return ClipPair(case.clip, footage[case.generated], reference, sound, transcript=case.transcript)

    def _mismatch(self, case: Case, pair: ClipPair, inputs: Inputs) -> FormatMismatch | None:
        """None where no reference is to be equalled frame by frame, or a file cannot be read."""
        if case.reference is None or self._work.protocol.reference != "ground-truth":
            return None
        key = self._key(FORMAT, inputs, version=1, settings={}, weights=())
        try:
            statistics, _ = self._kept_or_new(key, inputs, lambda: measure_format(pair))
        except ClipError:
            return None  # each metric has met the same failure and says so
        return format_mismatch(case, statistics)

    def _outcome(self, name: str, case: Case, pair: ClipPair, inputs: Inputs) -> Outcome:
        if self._work.protocol.reference == "picture" and not self._entries[name].metric.needs_reference:
            # What such a metric would take for the right picture is not; it does without.
            pair, inputs = replace(pair, reference=None), inputs.without_reference()
        if self._entries[name].metric.needs_transcript:
            inputs = inputs.with_transcript(case.transcript)
        try:
            metric = self._metric(name)
            weights = self._entries[name].weights(self._work.protocol)
            settings, origin = metric.settings(), self._entries[name].origin
            settings |= {"from": origin} if origin else {}
            key = self._key(name, inputs, metric.version, settings, weights)
            statistics, new = self._kept_or_new(key, inputs, lambda: metric.measure(pair))
            values = metric.score(statistics) if metric.per_clip else {}
        except StorageError:
            raise
        except (
            Exception
        ) as error:  # not hidden: what is no ClipError is recorded as unexpected, with its place
            return _failed(case, name, error)
        finite = {key: float(value) for key, value in values.items() if isfinite(value)}
        failures = tuple(
            Failure(case.method, case.clip, name, name, "not-finite", f"{key} is {value}")
            for key, value in values.items()
            if key not in finite
        )
        return Outcome(name, settings, finite, failures, self._cache.path(key), new)

    def _key(
        self, name: str, inputs: Inputs, version: int, settings: Mapping[str, Any], weights: Sequence[str]
    ) -> Key:
        facts = {
            "metric": name,
            "version": version,
            "settings": settings,
            "weights": {f.entry.name: f.sha256 for f in self._work.weights if f.entry.name in weights},
            "tracker": [self._work.protocol.tracker, plugin_origin(TRACKERS, self._work.protocol.tracker)],
            "pixels": self._work.protocol.pixels,
            "versions": self._versions,
            "inputs": dict(inputs.digests),
        }
        return Key(name, facts)

    def _kept_or_new(
        self, key: Key, inputs: Inputs, measure: Callable[[], Statistics]
    ) -> tuple[Statistics, bool]:
        """Statistics from the cache, or measured and kept; and whether they are new.

        Raises the ClipError that was kept, or is met now.
        """
        content = self._cache.load(key)
        new = content is None
        if content is None:
            try:
                content = measure()
            except ClipError as error:
                if not is_lasting(error):
                    raise
                content = error
            if not inputs.unchanged():
                raise ClipError("media", "changed", "a file changed while it was read", transient=True)
            try:
                self._cache.save(key, content)
            except OSError as error:
                raise StorageError(f"{self._cache.folder} cannot be written: {error}") from error
        if isinstance(content, ClipError):
            raise content
        return content, new


def _load_statistics(entry: Path) -> Statistics:
    """Raises StorageError."""
    statistics = load_entry(entry)
    if statistics is None or isinstance(statistics, ClipError):
        raise StorageError(f"{entry} is gone or damaged; run the same command again")
    return statistics


def failed_case(task: Task, error: Exception) -> CaseResult:
    """The result of a case that could not be begun: the same failure for each metric."""
    return CaseResult(task.case, None, tuple(_failed(task.case, name, error) for name in task.metrics), 0)


def _frames(pair: ClipPair) -> int:
    """Frames of the generated video as its file states them."""
    try:
        return round((pair.generated.info.duration_s or 0) * FPS)
    except ClipError:
        return 0


def _failed(case: Case, name: str, error: Exception) -> Outcome:
    """The outcome of a metric that raised."""
    if isinstance(error, ClipError):
        failure = Failure(case.method, case.clip, name, error.stage, error.reason, error.detail)
    elif isinstance(error, LoadError):
        failure = Failure(case.method, case.clip, name, LOAD, "cannot-load", str(error), unexpected=True)
    else:
        reason = type(error).__name__
        failure = Failure(case.method, case.clip, name, name, reason, _describe(error), unexpected=True)
    return Outcome(name, {}, {}, (failure,))


def _describe(error: Exception) -> str:
    """An exception in one line, with its place."""
    frames = traceback.extract_tb(error.__traceback__)[-1:]
    where = "".join(f" ({Path(frame.filename).name}:{frame.lineno})" for frame in frames)
    text = next(iter(str(error).splitlines()), "")  # PyTorch lists all tensors of a foreign network below it
    return f"{type(error).__name__}: {text}{where}"

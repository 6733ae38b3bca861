"""What an evaluation found: frozen records that the suite makes and the report reads.

Everything is counted here, nothing is rounded or judged. For each method:
`clips expected = scored + failed + missing` holds for every metric (see `Coverage`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias

from syncdiff.evaluate.metrics.base import Value

Scope: TypeAlias = Literal["shared", "own"]


@dataclass(frozen=True)
class Case:
    """A generated video that is to be scored.

    clip: its name, the same for all methods (a path without suffix, with forward slashes). reference: None
    where there is none. sound: the file whose sound drove it, often the generated video itself. transcript:
    what is said in it, where that is known and asked for.
    """

    method: str
    clip: str
    generated: Path
    reference: Path | None
    sound: Path
    transcript: str | None = None


@dataclass(frozen=True)
class Unmatched:
    """A file or a list entry that could not become a case.

    side: "generated" (a video without reference, or unreadable by name), "reference" (nothing was generated
    for it: `clip` is then missing from `method`), or "list" (a line that names what is not there).
    method: None where the file belongs to no method.
    """

    side: Literal["generated", "reference", "list"]
    method: str | None
    name: str
    reason: str


@dataclass(frozen=True)
class MetricInfo:
    """A metric that was run. `settings` are all choices that change its figures; `lse` names its protocol."""

    name: str
    version: int
    values: tuple[Value, ...]
    per_clip: bool
    needs_reference: bool
    needs_sound: bool
    weights: tuple[str, ...]
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class NotComputed:
    """A metric that was asked for and not run at all.

    reason: "no-weights", "no-reference", "not-in-protocol", "cannot-load". detail: one or more lines that say
    what is missing, where to get it, and the command.
    """

    metric: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Score:
    """Values of one clip by one metric. All are finite; one that is not is left out and is a `Failure`."""

    method: str
    clip: str
    metric: str
    values: Mapping[str, float]


@dataclass(frozen=True)
class Failure:
    """A clip that a metric could not score.

    stage and reason as in ClipError. unexpected: an exception that no stage declares; `reason` is then its
    type, and it is to be shown prominently, since it may be a defect of the program.
    """

    method: str
    clip: str
    metric: str
    stage: str
    reason: str
    detail: str
    unexpected: bool = False


@dataclass(frozen=True)
class Pooled:
    """Values of a method over several clips.

    scope "shared": the clips that every method has a score for (methods that have none at all left out),
    for comparing methods; "own": all clips of this method. `clips` are their names, sorted. values: empty
    where `problem` says why they could not be computed.
    """

    method: str
    metric: str
    scope: Scope
    clips: tuple[str, ...]
    values: Mapping[str, float]
    problem: str = ""


@dataclass(frozen=True)
class FormatMismatch:
    """How a generated clip and its reference differ in length, size, rate and start.

    frames: generated minus reference, of the pictures that were to be compared: as stored (by_index), or at
    25 per second. flagged: by more than 2 frames or 5 %, or the start by more than half a frame.
    resized_from: the generated (width, height) where it is not the reference's. Rates are those of the files.
    start_s: how much later, against its own sound, the generated picture starts than the reference's; 0 where
    either has no sound. Pixel aspects are width over height of a stored pixel.
    """

    method: str
    clip: str
    generated_frames: int
    reference_frames: int
    flagged: bool
    resized_from: tuple[int, int] | None
    reference_size: tuple[int, int]
    generated_fps: float | None
    reference_fps: float | None
    by_index: bool = True
    start_s: float = 0.0
    generated_pixel_aspect: float = 1.0
    reference_pixel_aspect: float = 1.0

    @property
    def frames(self) -> int:
        return self.generated_frames - self.reference_frames

    @property
    def starts_differ(self) -> bool:
        """By a millisecond or more: time stamps are often rounded to it."""
        return abs(self.start_s) >= 0.001

    @property
    def oblong_pixels(self) -> bool:
        """Whether either file asks for pixels that are not square."""
        return (self.generated_pixel_aspect, self.reference_pixel_aspect) != (1.0, 1.0)

    @property
    def differs(self) -> bool:
        """Whether there is anything to tell."""
        rates = self.generated_fps != self.reference_fps
        sizes = self.resized_from is not None or self.oblong_pixels
        return bool(self.frames) or sizes or rates or self.starts_differ


@dataclass(frozen=True)
class MediaFormat:
    """How a generated video is coded, in ffmpeg's names, as it came. None: the file does not say."""

    method: str
    clip: str
    container: str | None
    video_codec: str | None
    video_kbps: float | None
    fps: float | None
    audio_codec: str | None
    audio_kbps: float | None


@dataclass(frozen=True)
class WeightUse:
    """A file of weights that figures were made with. verified: its hash is the published one."""

    name: str
    file: str
    sha256: str
    verified: bool
    metrics: tuple[str, ...]


@dataclass(frozen=True)
class Coverage:
    """Clips of a method for one value. expected = scored + failed + missing.

    missing: no video was generated, though there is a reference (or a line in the list) for it.
    """

    expected: int
    scored: int
    failed: int
    missing: int

    @property
    def dropped(self) -> int:
        """Clips without a score, whatever the cause."""
        return self.failed + self.missing


@dataclass(frozen=True)
class Evaluation:
    """All that is known after a run.

    protocol: its settings as plain JSON values, with `name` and `lse` among them. settings: what else was
    chosen for the run (arguments). notes: sentences that a reader of the figures must know. groups: clip ->
    what it shares with others (a speaker, a source video; `unit` says which), so that they are not
    independent; empty where that is not known.
    """

    protocol: Mapping[str, Any]
    methods: tuple[str, ...]
    cases: tuple[Case, ...]
    unmatched: tuple[Unmatched, ...]
    metrics: tuple[MetricInfo, ...]
    not_computed: tuple[NotComputed, ...]
    scores: tuple[Score, ...]
    failures: tuple[Failure, ...]
    pooled: tuple[Pooled, ...]
    mismatches: tuple[FormatMismatch, ...]
    weights: tuple[WeightUse, ...]
    versions: Mapping[str, str]
    settings: Mapping[str, Any]
    notes: tuple[str, ...] = field(default=())
    groups: Mapping[str, str] = field(default_factory=dict)
    unit: str = "clip"

    @cached_property
    def _metric_of_value(self) -> dict[str, MetricInfo]:
        return {value.name: metric for metric in self.metrics for value in metric.values}

    @cached_property
    def _by_value(self) -> dict[tuple[str, str], dict[str, float]]:
        values: dict[tuple[str, str], dict[str, float]] = {}
        for score in self.scores:
            for name, value in score.values.items():
                values.setdefault((score.method, name), {})[score.clip] = value
        return values

    @cached_property
    def _pooled(self) -> dict[tuple[str, str, Scope], Pooled]:
        # The first record of a kind counts, hence the turned order.
        return {(pool.method, pool.metric, pool.scope): pool for pool in reversed(self.pooled)}

    def clip_values(self, method: str, value: str) -> Mapping[str, float]:
        """Clip -> value, for the clips that have it."""
        return self._by_value.get((method, value), {})

    def pooled_for(self, method: str, metric: str, scope: Scope) -> Pooled | None:
        """The pooled values of a method, None where no clip was scored."""
        return self._pooled.get((method, metric, scope))

    def coverage(self, method: str, value: str) -> Coverage:
        """How many clips a method was to have, and what became of them, for one value.

        A value that exists for a set only (`per_clip` False) counts the clips that went into it.
        """
        generated = sum(case.method == method for case in self.cases)
        missing = sum(file.method == method and file.side != "generated" for file in self.unmatched)
        metric = self._metric_of_value[value]
        if metric.per_clip:
            scored = len(self.clip_values(method, value))
        else:
            pooled = self.pooled_for(method, metric.name, "own")
            scored = len(pooled.clips) if pooled else 0
        return Coverage(generated + missing, scored, generated - scored, missing)

    def unverified(self, metric: str) -> tuple[str, ...]:
        """Names of the weights of this metric whose files are not known to be the published ones."""
        return tuple(file.name for file in self.weights if metric in file.metrics and not file.verified)

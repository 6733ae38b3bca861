"""What went wrong in an evaluation, as counted groups and sentences, for terminal and page alike."""

from __future__ import annotations

from dataclasses import dataclass

from syncdiff.evaluate.metrics.base import FACE_LOST
from syncdiff.evaluate.records import Evaluation, Failure, FormatMismatch, Unmatched
from syncdiff.evaluate.report.tables import clips_text

# I3D gives 400 values a video. Papers take 2,048 videos: the bias of few is large (Skorokhodov et al. 2022).
FEW_FVD_VIDEOS = 256


@dataclass(frozen=True)
class FailureGroup:
    """Clips of a method that some metrics could not score for one reason, with one of them."""

    number: int
    method: str
    metrics: str
    reason: str
    example: str
    unexpected: bool


def failure_groups(evaluation: Evaluation) -> tuple[FailureGroup, ...]:
    """All failures: what may be a defect of the program first, then the most frequent ones."""
    clips: dict[tuple[str, str, str, bool], list[Failure]] = {}
    for failure in evaluation.failures:
        key = failure.method, failure.clip, f"{failure.stage}/{failure.reason}", failure.unexpected
        clips.setdefault(key, []).append(failure)
    first: dict[tuple[str, str, str, bool], list[Failure]] = {}  # of each clip
    for (method, _, reason, unexpected), failures in clips.items():
        metrics = ", ".join(dict.fromkeys(failure.metric for failure in failures))
        first.setdefault((method, metrics, reason, unexpected), []).append(failures[0])
    groups = [
        FailureGroup(len(failures), *key[:3], f"{failures[0].clip}: {failures[0].detail}", key[3])
        for key, failures in first.items()
    ]
    return tuple(sorted(groups, key=lambda group: (not group.unexpected, -group.number)))


def mismatch_sentence(evaluation: Evaluation) -> str:
    """How many clips differ in form from their references and what was done; empty where none does."""
    differing = [mismatch for mismatch in evaluation.mismatches if mismatch.differs]
    if not differing:
        return ""
    by_time = sum(not mismatch.by_index for mismatch in differing)
    sentences = [
        f"{clips_text(len(differing))} not of the reference's length, size, rate or start.",
        "Compared picture by picture, in the reference's size"
        + (f"; {by_time:,} at 25 fps over the frames that both have." if by_time else "."),
    ]
    late = [abs(mismatch.start_s) for mismatch in differing if mismatch.starts_differ]
    if late:
        most = f"by up to {max(late) * 1000:.0f} ms"
        sentences.append(f"Picture against sound starts at another time {most}: {len(late):,}.")
    oblong = sum(mismatch.oblong_pixels for mismatch in differing)
    if oblong:
        stored = evaluation.protocol.get("pixels") != "square"
        done = "taken for square, as OpenCV does (pixels: square widens them)" if stored else "widened"
        sentences.append(f"Pixels stated as not square, {done}: {oblong:,}.")
    flagged = len(flagged_mismatches(evaluation))
    sentences.append(f"Length off by over 2 frames or 5 %, or start by over 20 ms: {flagged:,}.")
    return " ".join(sentences)


def flagged_mismatches(evaluation: Evaluation) -> tuple[FormatMismatch, ...]:
    """Clips whose length or start differs by more than the rule allows."""
    return tuple(mismatch for mismatch in evaluation.mismatches if mismatch.flagged)


def mismatch_text(mismatch: FormatMismatch) -> str:
    text = f"{mismatch.method}, {mismatch.clip}: {mismatch.generated_frames:,} frames, "
    text += f"{mismatch.reference_frames:,} in the reference"
    if mismatch.starts_differ:
        order = "later" if mismatch.start_s > 0 else "earlier"
        text += f"; its picture starts {abs(mismatch.start_s) * 1000:.0f} ms {order} against its sound"
    if mismatch.resized_from is None:
        return text
    (width, height), (to_width, to_height) = mismatch.resized_from, mismatch.reference_size
    return f"{text}; resized from {width} × {height} to {to_width} × {to_height}"


def unmatched_text(file: Unmatched) -> str:
    method = f"{file.method}, " if file.method else ""
    return f"{file.side}: {method}{file.name}: {file.reason}"


def few_videos_sentences(evaluation: Evaluation) -> list[str]:
    """Methods whose FVD is of so few videos that it is far too large."""
    counts = {
        pooled.method: int(pooled.values["fvd_videos"])
        for pooled in evaluation.pooled
        if pooled.values.get("fvd_videos", FEW_FVD_VIDEOS) < FEW_FVD_VIDEOS
    }
    if not counts:
        return []
    listed = ", ".join(f"{method} {count:,}" for method, count in counts.items())
    return [
        f"FVD of fewer than {FEW_FVD_VIDEOS} videos ({listed}) is far too large; it compares with nothing."
    ]


def findings(evaluation: Evaluation) -> tuple[str, ...]:
    """What a reader must know before the figures, the worst first."""
    sentences = []
    unexpected = sum(failure.unexpected for failure in evaluation.failures)
    if unexpected:
        sentences.append(f"{unexpected:,} scores failed through an error in this program; please report it.")
    sentences += [
        f"Unverified weights {file.name} ({file.file}): its hash is not the published one. "
        f"Figures made with it: {', '.join(file.metrics)}."
        for file in evaluation.weights
        if not file.verified
    ]
    if not evaluation.scores and not evaluation.pooled:
        sentences.append("Nothing could be scored.")
    if evaluation.not_computed:
        metrics = ", ".join(metric.metric for metric in evaluation.not_computed)
        sentences.append(f"Not computed: {metrics}; see below.")
    if evaluation.unmatched:
        sentences.append(f"{len(evaluation.unmatched):,} unmatched files or list entries; see below.")
    lost = {
        (score.method, score.clip)
        for score in evaluation.scores
        if any(value for name, value in score.values.items() if name.endswith(FACE_LOST))
    }
    if lost:
        sentences.append(
            f"Frames without a face where one should be, in {clips_text(len(lost))}: they count as misses."
        )
    sentences += few_videos_sentences(evaluation)
    sentences.append(mismatch_sentence(evaluation))
    return (*filter(None, sentences), *evaluation.notes)

"""What went wrong in an evaluation, as counted groups and sentences, for terminal and page alike."""

from __future__ import annotations

from dataclasses import dataclass

from syncdiff.evaluate.records import Evaluation, Failure, FormatMismatch, Unmatched
from syncdiff.evaluate.report.tables import clips_text


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
    for one in evaluation.failures:
        clips.setdefault((one.method, one.clip, f"{one.stage}/{one.reason}", one.unexpected), []).append(one)
    groups: dict[tuple[str, str, str, bool], list[Failure]] = {}
    for (method, _, reason, unexpected), found in clips.items():
        metrics = ", ".join(dict.fromkeys(one.metric for one in found))
        groups.setdefault((method, metrics, reason, unexpected), []).append(found[0])
    made = [
        FailureGroup(len(found), *key[:3], f"{found[0].clip}: {found[0].detail}", key[3])
        for key, found in groups.items()
    ]
    return tuple(sorted(made, key=lambda one: (not one.unexpected, -one.number)))


def mismatch_sentence(evaluation: Evaluation) -> str:
    """How many clips differ in form from their references and what was done; empty where none does."""
    differing = sum(mismatch.differs for mismatch in evaluation.mismatches)
    if not differing:
        return ""
    flagged = len(flagged_mismatches(evaluation))
    return (
        f"{clips_text(differing)} not of the reference's length, size or rate: compared over the frames "
        f"that both have, at 25 fps, in the reference's size. "
        f"Longer or shorter by over 2 frames or 5 %: {flagged:,}."
    )


def flagged_mismatches(evaluation: Evaluation) -> tuple[FormatMismatch, ...]:
    """Clips whose length differs by more than the rule allows."""
    return tuple(mismatch for mismatch in evaluation.mismatches if mismatch.flagged)


def mismatch_text(mismatch: FormatMismatch) -> str:
    text = f"{mismatch.method}, {mismatch.clip}: {mismatch.generated_frames:,} frames, "
    text += f"{mismatch.reference_frames:,} in the reference"
    if mismatch.resized_from is None:
        return text
    (width, height), (to_width, to_height) = mismatch.resized_from, mismatch.reference_size
    return f"{text}; resized from {width} × {height} to {to_width} × {to_height}"


def unmatched_text(one: Unmatched) -> str:
    method = f"{one.method}, " if one.method else ""
    return f"{one.side}: {method}{one.name}: {one.reason}"


def findings(evaluation: Evaluation) -> tuple[str, ...]:
    """What a reader must know before the figures, the worst first."""
    found = []
    unexpected = sum(one.unexpected for one in evaluation.failures)
    if unexpected:
        found.append(f"{unexpected:,} scores failed through an error in this program; please report it.")
    unverified = [one for one in evaluation.weights if not one.verified]
    for one in unverified:
        found.append(
            f"Unverified weights {one.name} ({one.file}): its hash is not the published one. "
            f"Figures made with it: {', '.join(one.metrics)}."
        )
    if not evaluation.scores and not evaluation.pooled:
        found.append("Nothing could be scored.")
    if evaluation.not_computed:
        found.append(f"Not computed: {', '.join(one.metric for one in evaluation.not_computed)}; see below.")
    if evaluation.unmatched:
        found.append(f"{len(evaluation.unmatched):,} unmatched files or list entries; see below.")
    sentence = mismatch_sentence(evaluation)
    return (*found, *((sentence,) if sentence else ()), *evaluation.notes)

"""One shard, from its inputs to its files: every input ends as rows or as a reject."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from syncdiff.pipeline.datasets.transcripts import with_text
from syncdiff.pipeline.faces.backend import FaceBackend
from syncdiff.pipeline.faces.track import make_backend
from syncdiff.pipeline.features.builtin import SPECS
from syncdiff.pipeline.plan import ShardPlan
from syncdiff.pipeline.prep_config import PrepConfig
from syncdiff.pipeline.prepare_clip import prepare_clip
from syncdiff.pipeline.records import Clip, ClipError, Reject, Row
from syncdiff.pipeline.store.manifest import ShardResult, SourceFile
from syncdiff.pipeline.store.paths import StorePaths
from syncdiff.pipeline.store.schema import CLIP_SCHEMA, feature_schema
from syncdiff.pipeline.store.write import ShardWriter, feature_record

_log = logging.getLogger(__name__)


class ShardReporter(Protocol):
    """Is told how a shard gets on."""

    def begin(self, item: str) -> None: ...

    def on_progress(self, frames: int) -> None: ...

    def end(self, reason: str | None) -> None: ...


@dataclass(frozen=True)
class PrepContext:
    """What every shard of a run shares: what is read, where it goes, how, and the loaded face models."""

    layout: str
    raw: Path
    paths: StorePaths
    config: PrepConfig
    backend: FaceBackend

    @staticmethod
    def load(layout: str, raw: Path, root: Path, config: PrepConfig) -> PrepContext:
        return PrepContext(layout, raw, StorePaths(root), config, make_backend(config.tracker))


class _HalfDoneError(Exception):
    """A clip failed after some of its rows were written; the shard is written again without it."""

    def __init__(self, clip_id: str, error: ClipError) -> None:
        super().__init__(clip_id)
        self.clip_id = clip_id
        self.error = error


def prepare_shard(
    context: PrepContext,
    plan: ShardPlan,
    reporter: ShardReporter,
    refused: Mapping[str, ClipError] | None = None,
) -> ShardResult:
    """Make the files of one shard. `refused` names clips to reject unread, with the reason.

    Raises OSError where the files cannot be written; a clip's failure never leaves this function.
    """
    refused = dict(refused or {})
    while True:
        try:
            return _write_shard(context, plan, reporter, refused)
        except _HalfDoneError as half:
            refused[half.clip_id] = half.error


def _write_shard(
    context: PrepContext, plan: ShardPlan, reporter: ShardReporter, refused: Mapping[str, ClipError]
) -> ShardResult:
    root = context.paths.root
    rejects: list[Reject] = []
    sources: dict[str, SourceFile] = {}
    frames = 0
    with ExitStack() as stack:
        clips = stack.enter_context(ShardWriter(context.paths.clips(plan.name), CLIP_SCHEMA))
        features = {
            name: stack.enter_context(
                ShardWriter(
                    context.paths.features(name, plan.name),
                    feature_schema(name, SPECS[name].width, SPECS[name].rate_hz),
                )
            )
            for name in context.config.features
        }
        for clip in plan.clips:
            reporter.begin(clip.id)
            rows = 0
            reason = None
            with suppress(OSError):  # the clip's stages say what is wrong with it
                status = clip.path.stat()
                sources[clip.source] = SourceFile(status.st_size, status.st_mtime_ns)
            try:
                if clip.id in refused:
                    raise refused[clip.id]
                for row in _rows(clip, context, reporter):
                    clips.add(row.columns)
                    source = sources.get(clip.source)
                    if source and not rows:
                        sources[clip.source] = replace(source, sha256=row.columns["source_sha256"])
                    values = {f.extractor_id: f for f in row.features}
                    clip_id, num_frames = row.columns["clip_id"], row.columns["num_frames"]
                    for name, writer in features.items():
                        writer.add(feature_record(clip_id, num_frames, values.get(name)))
                    rows += 1
                    frames += num_frames
            except ClipError as error:
                if rows:
                    raise _HalfDoneError(clip.id, error) from error
                rejects.append(error.reject(clip))
                reason = f"{error.stage}/{error.reason}"
            reporter.end(reason)
        return ShardResult(
            name=plan.name,
            split=plan.split,
            inputs=len(plan.clips),
            prepared=len(plan.clips) - len(rejects),
            frames=frames,
            features={name: writer.finish(root) for name, writer in features.items()},
            clips=clips.finish(root),
            rejects=tuple(rejects),
            sources=sources,
        )


def _rows(clip: Clip, context: PrepContext, reporter: ShardReporter) -> Iterator[Row]:
    """The rows of a clip; an error nobody declared becomes a reject that names it.

    This is the one place where any exception is caught: a mistake of ours must cost one clip of a million,
    and must be seen. Running out of disk or memory is not a property of the clip and goes through.
    """
    try:
        clip = with_text(context.layout, context.raw, clip)
        yield from prepare_clip(clip, context.config, context.backend, reporter.on_progress)
    except (ClipError, OSError, MemoryError):
        raise
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        _log.exception("unexpected error in clip %s", clip.id)
        place = f"{Path(where.filename).name}:{where.lineno}"
        detail = f"{type(error).__name__}: {error} ({place}); please report this"
        raise ClipError("run", "internal-error", detail) from error

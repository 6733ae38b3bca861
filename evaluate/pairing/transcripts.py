"""What is said in a generated video, for metrics that read its lips."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from syncdiff.evaluate.pairing.match import Matched, References, split_name
from syncdiff.evaluate.protocol import Protocol
from syncdiff.evaluate.records import Case
from syncdiff.pipeline.datasets.transcripts import parse_lrs_text, read_text


def with_transcripts(matched: Matched, protocol: Protocol, references: References | None) -> Matched:
    """The cases with what is said in them, where that is known.

    It is in a `.txt` beside the generated video, or belongs to the clip whose sound is heard: its transcript
    in the data set, or a `.txt` beside it. A text of LRS's form gives its `Text:` line, another the whole.
    """
    spoken = references.transcripts if references else {}
    heard = _SoundClips(protocol, references)

    def transcript(case: Case) -> str | None:
        texts = (spoken.get(path) or _text_beside(path) for path in heard.paths(case))
        return next(filter(None, texts), None)

    return replace(matched, cases=tuple(replace(case, transcript=transcript(case)) for case in matched.cases))


class _SoundClips:
    """Whose words are heard in a case."""

    def __init__(self, protocol: Protocol, references: References | None) -> None:
        self._protocol = protocol
        self._videos = references.videos if references else {}
        self._flat = {name.replace("/", "_"): path for name, path in self._videos.items()}

    def paths(self, case: Case) -> Iterator[Path]:
        """Files beside which the words may lie, the surest first."""
        yield case.generated
        if case.sound != case.generated:
            yield case.sound
        elif self._protocol.reference == "ground-truth":
            if case.reference is not None:
                yield case.reference
        else:  # the reference shows the picture: the sound is its own, or that of `<picture>__<sound>`
            if case.clip in self._videos:
                yield self._videos[case.clip]
            for picture, sound in split_name(case.clip):
                if self._videos.get(picture) == case.reference and sound in self._flat:
                    yield self._flat[sound]


def _text_beside(video: Path) -> str | None:
    text = read_text(video.with_suffix(".txt"))
    return None if text is None else parse_lrs_text(text)[0] or text.strip() or None

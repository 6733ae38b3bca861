"""How each method's files are coded: sentences for a report's notes, and a warning where methods differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import median

from syncdiff.evaluate.records import MediaFormat

NOT_ALIKE = (
    "METHODS ARE NOT CODED ALIKE: a codec alone can move LSE by more than methods differ; "
    "--reencode scores all of them by one."
)


# ffmpeg names a family of containers by its first member.
CONTAINERS = {"mov": "MP4/MOV", "matroska": "Matroska/WebM"}


def media_notes(methods: Sequence[str], media: Sequence[MediaFormat], *, reencoded: bool) -> tuple[str, ...]:
    """A sentence a method, and NOT_ALIKE where codecs, containers or rates differ.

    reencoded: figures are those of copies by one codec; then no warning is due.
    """
    files = {method: [file for file in media if file.method == method] for method in methods}
    kinds = {method: _kind(coded) for method, coded in files.items() if coded}
    lines = [f"Files of {method}: {kind}; {_bit_rates(files[method])}." for method, kind in kinds.items()]
    differ = len(set(kinds.values())) > 1 and not reencoded
    return (*([NOT_ALIKE] if differ else []), *lines)


def _kind(files: Sequence[MediaFormat]) -> str:
    """Container, codecs and rate, each as most files have it, with how many where not all do."""
    container = _usual([file.container and CONTAINERS.get(file.container, file.container) for file in files])
    video, sound = _usual([file.video_codec for file in files]), _usual([file.audio_codec for file in files])
    return f"{container}, {video} at {_usual([file.fps for file in files])} fps, sound {sound}"


def _usual(names: Sequence[str | float | None]) -> str:
    texts = ["none" if name is None else f"{name:g}" if isinstance(name, float) else name for name in names]
    (text, count), *others = Counter(texts).most_common()
    return f"{text} ({count} of {len(texts)} files)" if others else text


def _bit_rates(files: Sequence[MediaFormat]) -> str:
    """Medians."""
    numbers = {"pictures": [f.video_kbps for f in files], "sound": [f.audio_kbps for f in files]}
    stated = {kind: [rate for rate in rates if rate is not None] for kind, rates in numbers.items()}
    return ", ".join(
        f"{kind} {median(rates):.0f} kbit/s" if rates else f"{kind} of unstated bit rate"
        for kind, rates in stated.items()
    )

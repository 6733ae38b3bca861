"""Which generated video belongs to which reference and which sound; whatever finds no partner is listed.

Names are compared without suffix (`a.avi` belongs to `a.mp4`); a list (`pair_lists`) may say otherwise. Where
references are the clips that pictures were taken from, a result `<picture>__<sound>` belongs to `<picture>`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from syncdiff.evaluate.pairing.groups import Groups, find_groups
from syncdiff.evaluate.pairing.methods import (
    FoundMethods,
    MatchError,
    Method,
    NothingFoundError,
    clip_name,
    find_results,
    list_videos,
)
from syncdiff.evaluate.pairing.pair_lists import JOINT, ListLine, read_list, without_annotations
from syncdiff.evaluate.protocol import Protocol
from syncdiff.evaluate.records import Case, Unmatched

_MOST_EXAMPLES = 3


@dataclass(frozen=True)
class References:
    """Reference videos by clip name. folder: where a list's other files (sound) may lie.

    groups: speakers by clip name, where they are known. transcripts: what is said in them, by file, where a
    data set knows it.
    """

    videos: Mapping[str, Path]
    origin: str
    folder: Path | None = None
    notes: tuple[str, ...] = ()
    groups: Groups = field(default_factory=Groups)
    transcripts: Mapping[Path, str] = field(default_factory=dict)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.find(name) is not None

    def find(self, name: str) -> Path | None:
        """The video of this clip name, or the file at this path below the folder."""
        video = self.videos.get(clip_name(name))
        if video is None and self.folder is not None and (self.folder / name).is_file():
            return self.folder / name
        return video


@dataclass(frozen=True)
class Matched:
    """All cases, by method and clip, and all that found no partner. groups: see `pairing.groups`."""

    methods: tuple[str, ...]
    cases: tuple[Case, ...]
    unmatched: tuple[Unmatched, ...]
    notes: tuple[str, ...]
    groups: Groups = field(default_factory=Groups)


def folder_references(folder: Path) -> References:
    """The videos of a folder, or one video. Raises as `list_videos` does, and NothingFoundError."""
    listed = list_videos(folder)
    if not listed.videos:
        raise NothingFoundError(f"no videos in {folder} (--reference)")
    problems = tuple(f"{folder}/{name}: {reason}" for name, reason in listed.problems)
    return References(
        listed.videos, str(folder), folder if folder.is_dir() else None, listed.notes + problems
    )


def match(
    results: Sequence[Path],
    protocol: Protocol,
    references: References | None = None,
    list_file: Path | None = None,
    *,
    sub_folders: bool | None = None,
    leave_out: Path | None = None,
    groups: str | None = None,
) -> Matched:
    """The cases of an evaluation. groups: which clips belong together, see `pairing.groups.find_groups`.

    Raises MatchError for input that cannot be used as it is, and NothingFoundError where no case is left.
    """
    notes: list[str] = list(references.notes) if references else []
    lines = None
    if protocol.sound == "reference" and references is None and list_file is None:
        raise MatchError("sound is to come from the references, and none are given")
    if list_file is not None:
        lines = read_list(list_file, protocol.lines)
        if protocol.lines == "pairs":
            lines = [_pair_line(line, protocol, references) for line in lines]
        elif references is not None:
            lines, note = without_annotations(lines, references)
            notes += [note] if note else []
    generated = find_results(
        results, _expected_names(lines, references, protocol), sub_folders=sub_folders, leave_out=leave_out
    )
    if lines is None and references is not None:
        references = _single(generated, results, references)
    beside_list = [list_file.parent] if list_file else []
    search = _Search(protocol, references, (*results, *beside_list, Path.cwd()))
    for method in generated.methods:
        if lines is not None:
            search.by_list(method, lines)
        else:
            search.by_name(method)
    if not search.cases:
        raise NothingFoundError(_no_case(generated, references, list_file))
    methods = tuple(method.name for method in generated.methods)
    cases = tuple(sorted(search.cases, key=lambda case: (methods.index(case.method), case.clip)))
    unmatched = (*generated.problems, *search.unmatched)
    unmatched += tuple(_missing_beside_others(methods, cases, unmatched))
    grouped = find_groups(
        cases,
        groups,
        references=references.videos if references else {},
        stored=references.groups if references else Groups(),
        pairs=lines or (),
    )
    return Matched(methods, cases, unmatched, (*generated.notes, *notes), grouped)


@dataclass
class _Search:
    """Collects cases, and what found no partner. folders: where paths in a list may start."""

    protocol: Protocol
    references: References | None
    folders: tuple[Path, ...]
    cases: list[Case] = field(default_factory=list)
    unmatched: list[Unmatched] = field(default_factory=list)

    def __post_init__(self) -> None:
        videos = self.references.videos if self.references else {}
        self._flat = {name.replace("/", "_"): name for name in videos}

    def by_name(self, method: Method) -> None:
        """Each video with the reference of its name; with no references at all, each video alone."""
        used = set()
        for clip, video in method.videos.items():
            picture, sound = self._partners(clip)
            if self.references is not None and picture is None:
                reason = f"no reference of this name in {self.references.origin}"
                self._no_partner("generated", method.name, clip, reason)
                continue
            used.add(picture)
            self._add(Case(method.name, clip, video, self._reference(picture), video), self._reference(sound))
        if self.references is not None and self.protocol.reference == "ground-truth":
            for name in self.references.videos:
                if name not in used:
                    self._no_partner("reference", method.name, name, "no video was generated for it")

    def by_list(self, method: Method, lines: Sequence[ListLine]) -> None:
        """Each line's video with what the line names."""
        # Names count from the first line that has one: numbers are looked up only where no result has a name.
        style = 0 if any(self._video(method, line.names[0]) for line in lines) else -1
        used: dict[str, str] = {}
        for line in lines:
            name = self._video(method, line.names[style])
            if name is None:
                self._no_partner("list", method.name, line.clip, f"{line.place}: no such generated video")
            elif name in used:
                self._no_partner("list", None, line.clip, f"{line.place}: the same as {used[name]}")
            else:
                used[name] = line.place
                # Methods may call the results of a pairs list differently; the clip is the same.
                clip = line.clip if self.protocol.lines == "pairs" else name
                self._add_listed(Case(method.name, clip, method.videos[name], None, Path()), line)
        for name in method.videos:
            if name not in used:
                self._no_partner("generated", method.name, name, "the list does not name it")

    def _add_listed(self, case: Case, line: ListLine) -> None:
        named = line.reference or (case.clip if self.references is not None else None)
        reference, sound = self._file(named), self._file(line.sound)
        where = f" in {self.references.origin}" if self.references else ""
        if named is not None and reference is None:
            self._no_partner("list", None, case.clip, f"{line.place}: no reference {named}{where}")
        elif line.sound is not None and sound is None:
            self._no_partner("list", None, case.clip, f"{line.place}: no sound {line.sound}{where}")
        elif line.sound is not None and self.protocol.lines == "files":
            self.cases.append(replace(case, reference=reference, sound=sound or case.generated))
        else:
            self._add(replace(case, reference=reference), sound if line.sound else reference)

    def _add(self, case: Case, sound: Path | None) -> None:
        """A case with the sound that the protocol wants; `sound`: that of the references, if known."""
        if self.protocol.sound in ("generated", "silence"):
            self.cases.append(replace(case, sound=case.generated))
        elif sound is not None:
            self.cases.append(replace(case, sound=sound))
        else:
            reason = "its sound is to come from a reference, and none is known"
            self._no_partner("generated", case.method, case.clip, reason)

    def _no_partner(self, side: str, method: str | None, name: str, reason: str) -> None:
        entry = Unmatched(side, method, name, reason)  # type: ignore[arg-type]
        if method is not None or entry not in self.unmatched:  # a list's own faults once, not for each method
            self.unmatched.append(entry)

    def _partners(self, clip: str) -> tuple[str | None, str | None]:
        """The reference clips that a result's picture and sound come from."""
        videos = self.references.videos if self.references else {}
        if clip in videos:
            return clip, clip
        if self.protocol.reference == "picture":
            for picture, sound in split_name(clip):
                if picture in videos:
                    return picture, self._flat.get(sound)
        return None, None

    def _reference(self, name: str | None) -> Path | None:
        return self.references.videos[name] if self.references and name is not None else None

    def _video(self, method: Method, name: str) -> str | None:
        """The video of a method that a list means: by its name below the method's folder, or by a path."""
        if clip_name(name) in method.videos:
            return clip_name(name)
        for folder in self.folders:
            if (folder / name).is_file():
                real = (folder / name).resolve()
                return next((own for own, video in method.videos.items() if video.resolve() == real), None)
        return None

    def _file(self, name: str | None) -> Path | None:
        """What a list names: a reference clip, or a file below the references, the results, or the list."""
        if name is None:
            return None
        reference = self.references.find(name) if self.references else None
        return reference or next(
            (folder / name for folder in self.folders if (folder / name).is_file()), None
        )


def _pair_line(line: ListLine, protocol: Protocol, references: References | None) -> ListLine:
    """A pairs list's line, with only those names in it that are needed."""
    return replace(
        line,
        reference=line.reference if references else None,
        sound=line.sound if protocol.sound == "reference" else None,
    )


def _expected_names(
    lines: Sequence[ListLine] | None, references: References | None, protocol: Protocol
) -> Callable[[str], bool] | None:
    """Whether results should have a clip of this name; None where nothing says so."""
    if lines is not None:
        return {clip_name(name) for line in lines for name in line.names}.__contains__
    if references is None:
        return None
    pictures = references.videos
    if protocol.reference == "ground-truth":
        return pictures.__contains__
    return lambda name: name in pictures or any(picture in pictures for picture, _ in split_name(name))


def split_name(name: str) -> Iterator[tuple[str, str]]:
    """All ways to read a name as `<picture>__<sound>`."""
    start = name.find(JOINT)
    while start >= 0:
        yield name[:start], name[start + len(JOINT) :]
        start = name.find(JOINT, start + 1)


def _single(generated: FoundMethods, results: Sequence[Path], references: References) -> References:
    """One result file and one reference file belong together, whatever their names."""
    if len(results) == 1 and results[0].is_file() and len(references.videos) == 1 and not references.folder:
        (path,) = references.videos.values()
        return replace(references, videos=dict.fromkeys(generated.methods[0].videos, path))
    return references


def _missing_beside_others(
    methods: Sequence[str], cases: Sequence[Case], unmatched: Sequence[Unmatched]
) -> Iterator[Unmatched]:
    """Clips that other methods have: a method that failed at them must not look better for it."""
    listed = {(entry.method, entry.name) for entry in unmatched}
    own = {method: {case.clip for case in cases if case.method == method} for method in methods}
    for method in methods:
        for clip in sorted(set().union(*own.values()) - own[method]):
            if (method, clip) not in listed:
                reason = "other methods have it, this one does not"
                yield Unmatched("reference", method, clip, reason)


def _no_case(generated: FoundMethods, references: References | None, list_file: Path | None) -> str:
    videos = [name for method in generated.methods for name in method.videos]
    lines = [f"none of {len(videos)} generated videos has a partner"]
    lines.append(f"  generated, for example: {_some(videos)}")
    if list_file is not None:
        lines.append(f"  wanted by {list_file}, in lines that name a generated video and its reference")
    if references is not None:
        lines.append(f"  references in {references.origin}, for example: {_some(references.videos)}")
    lines.append("names are paths below the folders given, without suffix; they must be equal on both sides")
    return "\n".join(lines)


def _some(names: Collection[str]) -> str:
    return ", ".join(sorted(names)[:_MOST_EXAMPLES]) + (", ..." if len(names) > _MOST_EXAMPLES else "")

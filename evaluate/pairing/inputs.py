"""What the user asks for: inputs and outputs of an evaluation, and whether they go together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from syncdiff.evaluate.pairing.dataset_references import StoredClip, list_stored
from syncdiff.evaluate.pairing.match import References, folder_references
from syncdiff.evaluate.pairing.methods import MatchError, method_names
from syncdiff.evaluate.protocol import Protocol
from syncdiff.pipeline.file_hash import sha256_file


@dataclass(frozen=True)
class EvalInputs:
    """What the command line says of inputs and outputs."""

    results: tuple[Path, ...]
    reference: Path | None
    data: Path | None
    raw: Path | None
    split: str | None
    list_file: Path | None
    sub_folders: bool | None
    metrics: tuple[str, ...] | None
    unverified_weights: bool
    out_dir: Path
    cache: Path
    groups: str | None = None
    metric_files: tuple[Path, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """What decides the figures, as plain JSON values."""
        paths = {"reference": self.reference, "data": self.data, "raw": self.raw, "list": self.list_file}
        return {
            "results": [str(path) for path in self.results],
            **{name: None if path is None else str(path) for name, path in paths.items()},
            "list_sha256": None if self.list_file is None else sha256_file(self.list_file),
            "split": self.split,
            "groups": self.groups,
            "metrics": None if self.metrics is None else list(self.metrics),
            "metric_files": [f"{file} sha256:{sha256_file(file)}" for file in self.metric_files],
            "unverified_weights": self.unverified_weights,
        }


def default_folder(results: Sequence[Path], protocol: Protocol) -> Path:
    """`eval/<names of RESULTS>-<protocol>` in the current folder."""
    names = "+".join(name.replace("/", "_") for name in method_names(results))
    return Path("eval") / f"{names[:80]}-{protocol.name.removesuffix('.yaml')}"


def find_references(inputs: EvalInputs) -> tuple[References | None, dict[Path, StoredClip]]:
    """The references that were asked for, and how those of a data set are written."""
    if inputs.data is not None:
        stored = list_stored(inputs.data, inputs.cache / "references", split=inputs.split, raw=inputs.raw)
        references = References(
            stored.videos,
            str(inputs.data),
            inputs.raw,
            groups=stored.groups,
            transcripts=stored.transcripts,
        )
        return references, stored.rows
    if inputs.reference is not None:
        return folder_references(inputs.reference), {}
    return None, {}


def check(inputs: EvalInputs, out_is_chosen: bool) -> None:
    """Raise MatchError for arguments that do not go together."""
    if inputs.data is not None and inputs.reference is not None:
        raise MatchError("give --reference or --data, not both")
    if inputs.data is None and (inputs.raw is not None or inputs.split is not None):
        raise MatchError("--raw and --split belong to --data")
    if len(inputs.results) > 1 and inputs.sub_folders is not None:
        raise MatchError("--one-method and --sub-folders are for a single RESULTS; several are a method each")
    folders = [*inputs.results, *([inputs.reference] if inputs.reference else [])]
    for folder in folders:
        if not out_is_chosen and inputs.out_dir.resolve().is_relative_to(folder.resolve()):
            raise MatchError(f"the report would be written into {folder}; say where with --out")

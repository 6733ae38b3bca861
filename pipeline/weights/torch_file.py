"""The door for weights of others: what `torch.save` wrote, read without trust in it.

A pickle can ask for functions to be called, and for more memory or time than there is. The first is met by
`syncdiff.pipeline.weights.inert`, the second here: that module runs as a process of its own, with a limit on
its memory and time, and hands back a `.safetensors` file.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from syncdiff.pipeline.records import CheckpointError
from syncdiff.pipeline.weights.published import WeightFile

# Beside what PyTorch takes by itself. A file's numbers are read, copied, and made into the answer's bytes.
MEMORY_BYTES, MEMORY_PER_BYTE = 1 << 30, 3
TIMEOUT_S, TIMEOUT_S_PER_GB = 120, 120  # PyTorch's import on a busy machine; a slow disk

_KNOWN_BEGINNINGS = {  # in lower case
    b"\xff\xd8\xff": "it is a JPEG picture",
    b"\x89png": "it is a PNG picture",
    b"\x1f\x8b": "it is gzip-compressed; unpack it first",
    b"version https://git-lfs": "it is a Git LFS pointer; fetch the file itself",
    b"<!doctype": "it is a web page, perhaps saved in place of the download",
    b"<html": "it is a web page, perhaps saved in place of the download",
}


@dataclass(frozen=True)
class TorchFile:
    """A checkpoint's state dict, its `cfg` or `args` as plain containers, and the symbols of its dictionary;
    `kind` is torch-zip or torch-legacy."""

    state: dict[str, Tensor]
    config: dict[str, Any]
    kind: str
    vocabulary: tuple[str, ...] = ()


def read_weights(file: WeightFile) -> dict[str, Tensor]:
    """The state dict of weights, on the CPU; whoever may have made the file.

    One that is byte for byte the published needs no second process. Raises CheckpointError as
    `read_torch_file` does.
    """
    if file.verified:
        state: dict[str, Tensor] = torch.load(file.path, map_location="cpu", weights_only=True)
        return state
    return read_torch_file(file.path).state


def read_torch_file(path: Path) -> TorchFile:
    """Raises CheckpointError, in one sentence, for a file that is damaged, of another kind, that asks to run
    code, or that cannot be read within the limits."""
    try:
        with path.open("rb") as file:
            head = file.read(64)
        size = path.stat().st_size
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    if not head.startswith((b"PK", b"\x80")):
        kinds = (kind for start, kind in _KNOWN_BEGINNINGS.items() if head.lower().startswith(start))
        guess = next(kinds, "it begins with neither a zip archive nor a pickle") if head else "it is empty"
        raise CheckpointError(f"{path} is no PyTorch checkpoint: {guess}")
    with tempfile.TemporaryDirectory(prefix="syncdiff-checkpoint-") as folder:
        answer = Path(folder, "answer.safetensors")
        _run(path, answer, MEMORY_BYTES + MEMORY_PER_BYTE * size, TIMEOUT_S + TIMEOUT_S_PER_GB * size / 1e9)
        with safe_open(answer, framework="pt") as tensors:
            about = json.loads(tensors.metadata()["about"])
            state = {name: tensors.get_tensor(str(index)) for index, name in enumerate(about["names"])}
    return TorchFile(state, about["config"], about["kind"], tuple(about["vocabulary"]))


def _run(path: Path, answer: Path, memory_bytes: int, timeout_s: float) -> None:
    command = [sys.executable, "-m", "syncdiff.pipeline.weights.inert"]
    try:
        child = subprocess.run(
            [*command, str(path.absolute()), str(answer), str(memory_bytes)],
            cwd=answer.parent,  # where Python looks for modules first: an empty folder
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # PyTorch's C++ stacks
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CheckpointError(
            f"{path} is damaged or an attack: reading it takes over {timeout_s:.0f} s"
        ) from None
    if child.returncode:
        died = "cannot be read: the process that read it died, perhaps for want of memory"
        raise CheckpointError(f"{path} {child.stdout.decode('utf-8', 'replace') or died}")

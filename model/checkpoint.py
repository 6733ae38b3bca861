"""Checkpoints: everything a run needs to go on as if it had never stopped.

    <out>/checkpoints/step-0001000/   model.safetensors ema.safetensors optimizer.safetensors
    random.safetensors
                                      state.json: step, data position, configuration, sound, preparation,
                                      versions

Tensors and JSON only: opening a checkpoint runs no code. One is written beside its place and renamed, so a
name that is there is whole; an older one is deleted only after that.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from syncdiff.pipeline.file_hash import sha256_file
from syncdiff.pipeline.records import CheckpointError
from syncdiff.pipeline.store import manifest
from syncdiff.pipeline.store.paths import StoreError

FORMAT = 1
_STATE = "state.json"


def save(
    folder: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: dict[str, Any], keep: int
) -> Path:
    """Write `tensors` (one file a key) and `state`; keep the newest `keep`. Raises CheckpointError."""
    target = folder / f"step-{step:07d}"
    temporary = folder / f".{target.name}.tmp"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        for name, group in tensors.items():
            save_file(
                {k: v.detach().cpu().contiguous() for k, v in group.items()},
                temporary / f"{name}.safetensors",
            )
        hashes = {file.name: sha256_file(file) for file in sorted(temporary.iterdir())}
        manifest.write_state(temporary / _STATE, {"format": FORMAT, "step": step, **state, "files": hashes})
        for file in temporary.iterdir():
            # safetensors makes its files readable by their owner alone; state.json has what the umask allows
            shutil.copymode(temporary / _STATE, file)
            _flush(file)
        shutil.rmtree(target, ignore_errors=True)
        temporary.rename(target)
        _flush(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        before = newest(folder)
        safe = f"{before.name} is still whole" if before else "none was written before"
        raise CheckpointError(f"could not save step {step} in {folder}: {error}; {safe}") from error
    for old in everything(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def everything(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first."""
    return sorted(p for p in folder.glob("step-*") if (p / _STATE).is_file())


def newest(folder: Path) -> Path | None:
    """The checkpoint to go on from, if there is one."""
    return next(reversed(everything(folder)), None)


def find(path: Path) -> Path:
    """A checkpoint, given itself, its file, or the run that holds it. Raises CheckpointError."""
    for candidate in (path, path.parent):
        if (candidate / _STATE).is_file():
            return candidate
    checkpoint = newest(path / "checkpoints") or newest(path)
    if checkpoint is None:
        raise CheckpointError(
            f"{path}: no checkpoint here (a folder step-… with {_STATE}, or a run that holds some)"
        )
    return checkpoint


def read_state(checkpoint: Path) -> dict[str, Any]:
    """The content of state.json. Raises CheckpointError if it is damaged or of a newer version."""
    try:
        state = manifest.read_state(checkpoint / _STATE)
        version = int(state["format"])
    except (OSError, StoreError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{checkpoint}: {_STATE} cannot be read: {error!r}") from error
    if version > FORMAT:
        raise CheckpointError(
            f"{checkpoint}: written by a newer syncdiff (format {version}; this one reads {FORMAT})"
        )
    return state


def read_tensors(checkpoint: Path, name: str) -> dict[str, Tensor]:
    """The tensors of one file of a checkpoint. Raises CheckpointError."""
    file = checkpoint / f"{name}.safetensors"
    if not file.is_file():  # nor a link to a device that never ends
        raise CheckpointError(f"{checkpoint}: {file.name} cannot be read: there is no such file")
    written = read_state(checkpoint).get("files", {}).get(file.name)  # checkpoints of before have no hashes
    try:
        if written is not None and sha256_file(file) != written:
            raise CheckpointError(
                f"{checkpoint}: {file.name} cannot be read: its content is not what was written"
            )
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{checkpoint}: {file.name} cannot be read: {error}") from error


def load_into(module: torch.nn.Module, checkpoint: Path, name: str) -> None:
    """Load tensors into a module of the same configuration. Raises CheckpointError where they do not fit."""
    try:
        module.load_state_dict(read_tensors(checkpoint, name))
    except RuntimeError as error:
        raise CheckpointError(f"{checkpoint}: {name} does not fit its configuration: {error}") from error


def pack_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """An optimizer's state as tensors named `<parameter>.<what>`, and its groups as JSON."""
    state = optimizer.state_dict()
    tensors = {
        f"{i}.{k}": torch.as_tensor(v) for i, entry in state["state"].items() for k, v in entry.items()
    }
    return tensors, state["param_groups"]


def unpack_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], groups: list[dict[str, Any]]
) -> None:
    """Load what `pack_optimizer` gave."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, _, what = name.partition(".")
        state.setdefault(int(index), {})[what] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": groups})

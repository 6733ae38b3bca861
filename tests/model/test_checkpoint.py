"""Checkpoints: whole or not there, never executed, never lost."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from syncdiff.model import checkpoint as ckpt
from syncdiff.pipeline.records import CheckpointError

TENSORS = {
    "model": {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(2, dtype=torch.int64)},
    "ema": {"a": torch.ones(1)},
}


def test_round_trip(tmp_path: Path) -> None:
    saved = ckpt.save(tmp_path, 7, TENSORS, {"position": 3}, keep=2)
    state = ckpt.read_state(saved)
    assert set(state.pop("files")) == {f"{name}.safetensors" for name in TENSORS}
    assert state == {"format": ckpt.FORMAT, "step": 7, "position": 3}
    read = ckpt.read_tensors(saved, "model")
    assert all(torch.equal(read[name], tensor) for name, tensor in TENSORS["model"].items())


def test_files_are_as_readable_as_the_umask_allows(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        saved = ckpt.save(tmp_path, 1, TENSORS, {}, keep=2)
    finally:
        os.umask(before)
    assert {p.stat().st_mode & 0o777 for p in saved.iterdir()} == {0o640}


def test_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (5, 20, 100):
        ckpt.save(tmp_path, step, TENSORS, {}, keep=2)
    assert [p.name for p in ckpt.everything(tmp_path)] == ["step-0000020", "step-0000100"]
    assert ckpt.newest(tmp_path) == tmp_path / "step-0000100"


def test_a_half_written_one_is_not_seen_and_does_not_disturb(tmp_path: Path) -> None:
    ckpt.save(tmp_path, 1, TENSORS, {}, keep=2)
    (tmp_path / ".step-0000002.tmp").mkdir()
    (tmp_path / ".step-0000002.tmp" / "model.safetensors").write_bytes(b"half")
    assert ckpt.newest(tmp_path) == tmp_path / "step-0000001"
    assert ckpt.save(tmp_path, 2, TENSORS, {}, keep=2).is_dir()
    assert not (tmp_path / ".step-0000002.tmp").exists()


@pytest.mark.parametrize(
    "inside", ["", "checkpoints", "checkpoints/step-0000001", "checkpoints/step-0000001/ema.safetensors"]
)
def test_a_checkpoint_is_found_by_run_or_folder_or_file(inside: str, tmp_path: Path) -> None:
    saved = ckpt.save(tmp_path / "checkpoints", 1, TENSORS, {}, keep=2)
    assert ckpt.find(tmp_path / inside) == saved


def test_no_checkpoint_is_said(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint here"):
        ckpt.find(tmp_path)


def test_a_newer_version_is_refused(tmp_path: Path) -> None:
    saved = ckpt.save(tmp_path, 1, TENSORS, {}, keep=2)
    state = json.loads((saved / "state.json").read_text())
    del state["content_sha256"]
    (saved / "state.json").write_text(json.dumps({**state, "format": ckpt.FORMAT + 1}))
    with pytest.raises(CheckpointError, match="newer syncdiff"):
        ckpt.read_state(saved)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"format": "x"}', b"\xff", b"[" * 200_000])
def test_a_damaged_state_is_refused(content: bytes, tmp_path: Path) -> None:
    saved = ckpt.save(tmp_path, 1, TENSORS, {}, keep=2)
    (saved / "state.json").write_bytes(content)
    with pytest.raises(CheckpointError, match="cannot be read"):
        ckpt.read_state(saved)


def test_damaged_and_missing_tensors_are_refused(tmp_path: Path) -> None:
    saved = ckpt.save(tmp_path, 1, TENSORS, {}, keep=2)
    file = saved / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-4])
    for name in ("model", "optimizer"):
        with pytest.raises(CheckpointError, match=f"{name}.safetensors cannot be read"):
            ckpt.read_tensors(saved, name)


@pytest.mark.parametrize("name", ["model.safetensors", "state.json"])
def test_one_flipped_bit_is_noticed(name: str, tmp_path: Path) -> None:
    """Both files stay readable: the last number of the tensors, a digit of the step."""
    saved = ckpt.save(tmp_path, 1, TENSORS, {}, keep=2)
    data = bytearray((saved / name).read_bytes())
    data[-1 if name == "model.safetensors" else data.index(b'"step": 1') + 8] ^= 2
    (saved / name).write_bytes(data)
    with pytest.raises(CheckpointError, match=f"{name} cannot be read.*its content is not what was written"):
        ckpt.read_tensors(saved, "model")


def test_tensors_of_another_network_are_refused(tmp_path: Path) -> None:
    saved = ckpt.save(tmp_path, 1, TENSORS, {}, keep=2)
    with pytest.raises(CheckpointError, match="does not fit"):
        ckpt.load_into(torch.nn.Linear(2, 2), saved, "model")


def test_optimizer_state_survives(tmp_path: Path) -> None:
    def stepped() -> tuple[torch.nn.Linear, torch.optim.AdamW]:
        torch.manual_seed(0)
        layer = torch.nn.Linear(3, 2)
        optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1)
        layer(torch.ones(1, 3)).sum().backward()
        optimizer.step()
        return layer, optimizer

    _, optimizer = stepped()
    tensors, groups = ckpt.pack_optimizer(optimizer)
    saved = ckpt.save(tmp_path, 1, {"optimizer": tensors}, {"optimizer": groups}, keep=1)
    layer, other = stepped()
    for group in other.param_groups:
        group["lr"] = 5.0
    other.state.clear()
    ckpt.unpack_optimizer(other, ckpt.read_tensors(saved, "optimizer"), ckpt.read_state(saved)["optimizer"])
    assert other.param_groups[0]["lr"] == 0.1
    for parameter, reference in zip(layer.parameters(), optimizer.param_groups[0]["params"], strict=True):
        for what in ("step", "exp_avg", "exp_avg_sq"):
            assert torch.equal(other.state[parameter][what], optimizer.state[reference][what])


FILL = """
import sys, resource, torch
from pathlib import Path
from syncdiff.model import checkpoint as ckpt
from syncdiff.pipeline.records import CheckpointError
folder = Path(sys.argv[1])
ckpt.save(folder, 1, {"model": {"a": torch.zeros(10)}}, {}, keep=1)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    ckpt.save(folder, 2, {"model": {"a": torch.zeros(100_000)}}, {}, keep=1)
except CheckpointError as error:
    print(error)
"""


def test_when_writing_fails_the_one_before_stays(tmp_path: Path) -> None:
    """A file size limit stands for the full disk: the very same write fails in the very same place."""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)
    done = subprocess.run(
        [sys.executable, "-c", FILL, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert "could not save step 2" in done.stdout and "step-0000001 is still whole" in done.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["step-0000001"]
    assert torch.equal(ckpt.read_tensors(tmp_path / "step-0000001", "model")["a"], torch.zeros(10))

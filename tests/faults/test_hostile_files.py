"""Settings, manifests, checkpoints, weights and names made to do harm end in a sentence, and nothing else."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from .harness import Argv, Row, executable, run

PREP, TRAIN, GENERATE, EVAL = (
    executable(f"syncdiff-{name}") for name in ("prep", "train", "generate", "eval")
)
LIMIT_KB = 10_000_000  # of address space, of which PyTorch reserves some: a bomb must not take the machine


def limited(argv: Argv) -> Argv:
    """The command with its memory limited; Ray's own servers reserve some GB of addresses."""
    return ["bash", "-c", f'ulimit -v {LIMIT_KB}; exec "$@"', "bash", *argv]


class Attack:
    """Unpickled, it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


def refused(argv: Argv, mark: Path, **environment: str) -> str:
    """A problem in words unless the command fails with a sentence and leaves no mark."""
    code, said = run(*argv, timeout_s=300, **environment)
    if mark.exists():
        mark.rmdir()
        return f"CODE RAN: {argv}"
    if code == 0 or code < 0 or "Traceback" in said or "error:" not in said:
        return f"ended with {code}: {said[-400:]}"
    return ""


def yaml_bombs(mark: Path) -> dict[str, str]:
    level = "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30))
    merge = "\n".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}], b{n}: *a{n - 1}}}" for n in range(1, 60))
    return {
        "python tag": f"face_size_px: !!python/object/apply:os.mkdir ['{mark}']\n",
        "python name": "face_size_px: !!python/name:os.system\n",
        "lists of aliases": "a0: &a0 [x]\n" + level,
        "merge keys": "a0: &a0 {x: 1}\n" + merge,
        "alias of itself": "a: &a [*a]\n",
        "deep": "a: " + "[" * 50_000,
        "huge number": "face_size_px: " + "9" * 100_000,
        "no text": "\0\1\2",
        "base of base": "base: here.yaml\n",
    }


def test_settings(row: Callable[[str, int], Row], small_raw: Path, small_store: Path, tmp_path: Path) -> None:
    line, file, mark = row("hostile YAML: prep, train, eval", 0), tmp_path / "here.yaml", tmp_path / "mark"
    for text in yaml_bombs(mark).values():
        file.write_text(text)
        for command in (
            [PREP, "folder", small_raw, "--out", tmp_path / "out", "--config", file],
            [TRAIN, file, "--data", small_store, "--out", tmp_path / "out"],
            [EVAL, small_raw, "--reference", small_raw, "--protocol", file, "--out", tmp_path / "out"],
        ):
            line.count(refused(limited(command), mark))
            if (tmp_path / "out").exists():
                line.lost.append(f"{command[0]} wrote --out")
    assert not line.lost


JSON_BOMBS = {
    "deep lists": "[" * 200_000,
    "deep objects": '{"a":' * 200_000,
    "huge number": '{"format": ' + "9" * 1_000_000 + "}",
    "a number": "7",
    "other types": '{"format": 1, "shards": 7, "features": {"a": [[]]}, "config": [], "audio": 5}',
    "surrogates": '{"format": "\\ud800"}',
    "nothing": "",
}


def test_json(
    row: Callable[[str, int], Row], small_store: Path, small_raw: Path, trained: Path, tmp_path: Path
) -> None:
    """dataset.json, extractor.json and a checkpoint's state.json."""
    line, mark, store, model = row("JSON bombs", 0), tmp_path / "mark", tmp_path / "store", tmp_path / "run"
    shutil.copytree(small_store, store)
    shutil.copytree(trained, model)
    state = next(model.rglob("state.json"))
    for bomb in JSON_BOMBS.values():
        (store / "dataset.json").write_text(bomb)
        for command in (
            [PREP, "inspect", store],
            [PREP, "export", "frames", store, tmp_path / "export"],
            [TRAIN, "train-tiny.yaml", "--data", store, "--out", tmp_path / "out"],
        ):
            line.count(refused(command, mark))
        state.write_text(bomb)
        out = tmp_path / "generated"
        line.count(refused([GENERATE, "--checkpoint", model, "--data", small_store, "--out", out], mark))
    assert not line.lost


@pytest.fixture(scope="module")
def trained(small_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps."""
    out = tmp_path_factory.mktemp("trained") / "run"
    sets = ["--set", "optim.batch_size=2", "--steps", "2"]
    code, said = run(TRAIN, "train-tiny.yaml", "--data", small_store, "--out", out, *sets)
    assert code == 0, said
    return out


def checkpoints(folder: Path, mark: Path) -> dict[str, Callable[[], object]]:
    """Ways to spoil a checkpoint's folder."""
    ema, state = folder / "ema.safetensors", folder / "state.json"

    def claim(**channels: Any) -> None:
        content = json.loads(state.read_text())
        del content["content_sha256"]
        content["config"]["model"]["unet"] |= channels
        state.write_text(json.dumps(content))

    def pickled() -> None:
        ema.write_bytes(pickle.dumps(Attack(mark)))

    def header(size: int, text: bytes = b"{}") -> None:
        ema.write_bytes(struct.pack("<Q", size) + text)

    return {
        "a pickle": pickled,
        "torch.save": lambda: torch.save({"a": Attack(mark)}, ema),
        "huge header": lambda: header(1 << 62),
        "deep header": lambda: header(400_000, b'{"a":' * 80_000),
        "huge tensor": lambda: header(
            80, b'{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}  '
        ),
        "huge network": lambda: claim(channels=[1 << 20, 1 << 20], attention=[False, False], norm_groups=32),
        "wide attention": lambda: claim(cross_width=1 << 40),
        "another network": lambda: ema.write_bytes(next(folder.rglob("optimizer.safetensors")).read_bytes()),
        "a link": lambda: (ema.unlink(), ema.symlink_to("/dev/zero")),
    }


def test_checkpoints(
    row: Callable[[str, int], Row], small_store: Path, trained: Path, tmp_path: Path
) -> None:
    line, mark = row("hostile generate --checkpoint", 0), tmp_path / "mark"
    for name in checkpoints(tmp_path, mark):
        model = tmp_path / "run"
        shutil.copytree(trained, model)
        folder = next(model.rglob("state.json")).parent
        checkpoints(folder, mark)[name]()
        command = [GENERATE, "--checkpoint", model, "--data", small_store, "--out", tmp_path / "results"]
        problem = refused(limited(command), mark)
        line.count(problem and f"{name}: {problem}")
        shutil.rmtree(model)
    assert not line.lost


def hostile_weights(path: Path, mark: Path) -> dict[str, Callable[[], object]]:
    """Files in the place of published weights."""
    return {
        "code": lambda: torch.save({"state_dict": {"a": torch.ones(1)}, "b": Attack(mark)}, path),
        "code alone": lambda: path.write_bytes(pickle.dumps(Attack(mark))),
        "a huge view": lambda: torch.save({"a": torch.zeros(1).expand(1 << 40)}, path),
        "memory": lambda: path.write_bytes(b"\x80\x02c__builtin__\nbytearray\nJ\xff\xff\xff\x7f\x85R."),
        "many objects": lambda: path.write_bytes(b"\x80\x02(" + b"]" * 3_000_000 + b"l."),
        "no checkpoint": lambda: path.write_bytes(b"no checkpoint"),
        "another network": lambda: torch.save({"a": torch.ones(3)}, path),
    }


METRICS = {
    "lse": "syncnet_v2.model",
    "lpips": "alexnet-owt-7be5be79.pth",
    "fid": "pt_inception-2015-12-05-6726825d.pth",
}


@pytest.mark.parametrize("metric", METRICS)
def test_weights_of_metrics(
    row: Callable[[str, int], Row], small_raw: Path, tmp_path: Path, metric: str
) -> None:
    """With --unverified-weights: no code runs, no clip is scored, and the reason is a sentence for each."""
    line, mark = row(f"hostile weights: {METRICS[metric]}", 0), tmp_path / "mark"
    raw, weights = tmp_path / "raw", tmp_path / "weights"
    raw.mkdir()
    weights.mkdir()
    shutil.copy(small_raw / "0.mp4", raw)
    for name, write in hostile_weights(weights / METRICS[metric], mark).items():
        write()
        code, said = run(
            *(EVAL, raw, "--reference", raw, "--metrics", metric, "--unverified-weights", "--workers", "1"),
            *("--out", tmp_path / name.replace(" ", "-")),
            SYNCDIFF_WEIGHTS=str(weights),
        )
        clean = (
            not mark.exists()
            and code >= 0
            and "Traceback (most" not in said
            and METRICS[metric] in said.replace("\n", "")
        )  # wrapped
        line.count("" if clean else f"{name}: ended with {code}: {said[-500:]}")
    assert not line.lost


def test_npy_pickles_in_a_cache(row: Callable[[str, int], Row], small_raw: Path, tmp_path: Path) -> None:
    """A cache that somebody else filled: its pickles are not loaded, its results are computed again."""
    line, mark, out = (
        row(".npy with pickles in an evaluation's cache", 0),
        tmp_path / "mark",
        tmp_path / "eval",
    )
    command = [EVAL, small_raw, "--reference", small_raw, "--metrics", "psnr", "--out", out]
    code, said = run(*command)
    assert code == 0, said
    table = (out / "per_clip.csv").read_bytes()
    for entry in sorted((tmp_path / "cache").rglob("*.npz")):
        with entry.open("wb") as file:
            np.savez(
                file, psnr=np.array([Attack(mark)], dtype=object), error=np.array([Attack(mark)], object)
            )
        code, said = run(*command)
        same = (out / "per_clip.csv").read_bytes() == table
        line.count("" if code == 0 and same and not mark.exists() else said[-300:])
    assert line.tried
    assert not line.lost


NAMES = (
    b"new\nline.mp4",
    b"'single' \"double\".mp4",
    b"-rf.mp4",
    b"--out.mp4",
    b"\xff\xfe invalid.mp4",
    b"<script>alert(1)</script>.mp4".replace(b"/", b"\xe2\x81\x84"),
    b"<img src=x onerror=alert(1)>.mp4",
    b"\\input{x} $\\write18{id}$ & % _ # ~ ^.mp4",
    b"| a | `b` | [c](javascript:alert(1)) |.mp4",
    b"\x1b[2J\x1b]0;title\x07\x9b31m.mp4",
    b"[red]markup[-x].mp4",
    b"=cmd('calc').mp4",
    "‮4pm.exe.mp4".encode(),
    b"%s%n{0}$(id)`id`;&|.mp4",
    b"a" * 251 + b".mp4",
)
FORBIDDEN = {
    ".html": (b"<script>alert", b"<img src=x", b"\x1b", b"\x07"),
    ".md": (b"<script>alert", b"<img src=x", b"\x1b", b"](javascript:"),
    ".tex": (b"\\input{x}", b"$\\write18", b"\x1b"),
}


def test_names(row: Callable[[str, int], Row], small_raw: Path, settings: Path, tmp_path: Path) -> None:
    """Names of files through preparation, inspection, export, evaluation, and into their pages and tables."""
    line, raw = row("hostile names", 0), tmp_path / "raw"
    raw.mkdir()
    for name in NAMES:
        shutil.copy(small_raw / "0.mp4", os.fsencode(raw) + b"/" + name)
    (raw / "loop").symlink_to(".")
    (raw / "a-loop").symlink_to("b-loop")
    (raw / "b-loop").symlink_to("a-loop")
    store, out = tmp_path / "store", tmp_path / "eval"
    for command in (
        [PREP, "folder", raw, "--out", store, "--config", settings],
        [PREP, "inspect", store],
        [PREP, "verify", store],
        [PREP, "export", "frames", store, tmp_path / "frames"],
        [PREP, "export", "wav2lip", store, tmp_path / "wav2lip"],
        [EVAL, raw, "--reference", raw, "--metrics", "psnr,correlation", "--out", out],
    ):
        code, said = run(*command, timeout_s=1800)
        bad = "\x1b" in said or "\x07" in said or "Traceback" in said
        line.count(f"{command[1]} ended with {code}: {said[-500:]!r}" if code or bad else "")
    pages = [store / "report/index.html", *(p for p in out.iterdir() if p.suffix in (".html", ".md", ".tex"))]
    for page in pages:
        content = page.read_bytes()
        found = [bad for bad in FORBIDDEN[page.suffix] if bad in content]
        line.count(f"{page.name} holds {found}" if found else "")
    outside = {p.name for p in tmp_path.iterdir()} - {"raw", "store", "frames", "wav2lip", "eval", "cache"}
    line.count(f"written elsewhere: {outside}" if outside else "")
    assert not line.lost


def test_the_trained_run_is_whole(trained: Path) -> None:
    """Guards the tests above: what they spoil is readable to begin with."""
    assert load_file(next(trained.rglob("ema.safetensors")))

"""Each file in configs/ opens with its command, and that command runs: on the sample data set, in small."""

from __future__ import annotations

import re
import shlex
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import typer

from syncdiff.evaluate.cli import evaluate
from syncdiff.model.cli import run_generate, run_train
from syncdiff.model.config import load_config
from syncdiff.pipeline.avhubert.extractor import load_avhubert
from syncdiff.pipeline.avhubert.untrained import make_tiny_checkpoint
from syncdiff.pipeline.cli import app as prep_app
from syncdiff.pipeline.features.add_to_store import extract_shard, unfinished_shards
from syncdiff.pipeline.file_hash import sha256_file
from syncdiff.pipeline.store.manifest import write_manifest
from syncdiff.pipeline.store.paths import StorePaths
from syncdiff.pipeline.weights import published

CONFIGS = sorted(Path(str(files("syncdiff.configs"))).glob("*.yaml"))
COMMAND = re.compile(r"^# {2,}(syncdiff-.*?)(?:\s{2,}#.*)?$", re.MULTILINE)  # without the remark after it
# Every network in small, a step on the processor.
SMALL = " --set ".join(
    (
        "--steps 1",
        "optim.batch_size=2 --set optim.accumulate=1 --set optim.device=cpu --set optim.precision=no",
        "model.resolution=32 --set model.unet.heads=2 --set model.unet.cross_width=8",
        "model.unet.norm_groups=4 --set model.unet.layers_per_block=1 --set model.pose.size=4",
        "loader.workers=0",
    )
)


def head(config: Path) -> str:
    """The comment that a file opens with."""
    return config.read_text("utf-8").split("\n\n")[0]


def commands(config: Path) -> list[str]:
    return COMMAND.findall(head(config))


def call(line: str) -> None:
    """Run a command in this process, as its entry point would."""
    program, *arguments = shlex.split(line)
    single = {"syncdiff-train": run_train, "syncdiff-generate": run_generate, "syncdiff-eval": evaluate}
    if program in single:
        app = typer.Typer()
        app.command()(single[program])
    else:
        app = prep_app
    code = typer.main.get_command(app).main(arguments, prog_name=program, standalone_mode=False)
    assert not code, f"exit code {code}"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, prepared_sample: Path, sample_raw: Path) -> Path:
    """A folder in which the paths of the commands lead somewhere."""
    here = tmp_path_factory.mktemp("configs")
    clips = sorted((sample_raw / "mvlrs_v1" / "main").rglob("0000[12].mp4"))
    trees = {
        "raw/lrs3": ("pretrain/a/00001", "trainval/b/00001", "test/c/00001"),
        "raw/voxceleb2": ("dev/mp4/id1/v/00001", "test/mp4/id2/v/00001"),
        "raw/hdtf": ("RD_Radio1_000", "WDA_BarackObama_000"),
        "raw/grid": ("s1/video/bbaf2n", "s2/video/bbaf3s"),
        "my/videos": ("train/a/1", "test/b/2"),
    }
    for root, names in trees.items():
        for name, clip in zip(names, clips, strict=False):
            (here / root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(clip, here / root / f"{name}.mp4")
    (here / "raw/lrs2").symlink_to(sample_raw)
    (here / "mine.yaml").write_text("jpeg_quality: 90\n")

    data = shutil.copytree(prepared_sample, here / "data/lrs2")
    extractor = load_avhubert(make_tiny_checkpoint(here / "encoder.safetensors"))
    for shard in unfinished_shards(data, extractor):
        extract_shard(data, shard, extractor)
    write_manifest(StorePaths(data))
    for name in ("sample", "hdtf"):
        (here / "data" / name).symlink_to("lrs2")
    return here


@pytest.fixture
def run(place: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Runs a command of a head among these folders."""
    monkeypatch.chdir(place)

    def command(line: str) -> None:
        line = line.replace("/raw/", "raw/").replace("/my/", "my/")
        line = line.replace("base_vox_iter5.pt", "encoder.safetensors").replace(" --ray-address auto", "")
        call(line)

    return command


def lines_of(kind: str) -> list[Any]:
    """The commands of the program in all heads, as parameters named by their file."""
    return [
        pytest.param(line, id=f"{config.stem}-{number}")
        for config in CONFIGS
        for number, line in enumerate(commands(config))
        if line.startswith(f"syncdiff-{kind}") and config.stem != "weights"
    ]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.stem)
def test_a_config_opens_with_its_command(config: Path) -> None:
    assert all(line.startswith("#") for line in head(config).splitlines())
    assert commands(config)


@pytest.mark.parametrize("line", lines_of("prep"))
def test_preparations_run(line: str, run: Callable[[str], None], capsys: pytest.CaptureFixture[str]) -> None:
    run(f"{line} --dry-run --limit 1")
    assert re.search(r"measured [1-9]\d* clips, 0 of them would be rejected", capsys.readouterr().out)


@pytest.mark.parametrize("line", lines_of("train"))
def test_trainings_run(line: str, run: Callable[[str], None], place: Path) -> None:
    config = load_config(CONFIGS[0].with_name(shlex.split(line)[1]))
    channels = str([8] * len(config.model.unet.channels)).replace(" ", "")
    line = f"{line} {SMALL} --set model.unet.channels={channels}"
    if config.model.audio.finetune_layers:
        line += " --set model.audio.checkpoint=encoder.safetensors --set model.audio.finetune_layers=1"
    run(line)
    out = place / shlex.split(line)[shlex.split(line).index("--out") + 1]
    assert (out / "checkpoints" / "step-0000001").is_dir()


@pytest.fixture(scope="module")
def trained(place: Path) -> None:
    """What an evaluation starts from: runs/lrs2, and results by name and by pair."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        call("syncdiff-train train-tiny.yaml --data data/lrs2 --out runs/generate --steps 1")
    clip = place / "raw/lrs2/mvlrs_v1/main/carphone/00001.mp4"
    (place / "results/carphone").mkdir(parents=True)
    for name in ("00001", "00002", "00001__carphone_00002"):
        shutil.copy(clip, place / f"results/carphone/{name}.mp4")
    for method in ("wav2lip-silent", "musetalk-silent"):
        (place / method / "carphone").mkdir(parents=True)
        shutil.copy(clip, place / method / "carphone/00001.mp4")
    (place / "filelists").mkdir()
    (place / "filelists/lrs2.txt").write_text("carphone/00002 carphone/00001\n")


@pytest.mark.parametrize("config", [c for c in CONFIGS if c.stem.startswith("eval-")], ids=lambda c: c.stem)
def test_evaluations_run(
    config: Path, trained: None, run: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    for line in commands(config):
        if line.startswith("syncdiff-generate"):
            run(line.replace("runs/lrs2", "runs/generate") + " --limit 1 --steps 1 --device cpu")
        else:
            run(f"{line} --dry-run")
            assert re.search(r"[1-9]\d* (clips|pairs|videos)", capsys.readouterr().out)


def test_weights_are_listed_and_fetched(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The address is that of a server on this machine."""
    content = tmp_path / "syncnet_v2.model"
    content.write_bytes(b"weights")
    monkeypatch.setenv("SYNCDIFF_WEIGHTS", str(tmp_path / "fetched"))
    with ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=tmp_path)
    ) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        url = f"http://127.0.0.1:{server.server_port}/{content.name}"
        entry = replace(published.entry_named("syncnet"), urls=(url,), sha256=sha256_file(content))
        monkeypatch.setattr(published, "registry", lambda: (entry,))
        for line in commands(CONFIGS[0].with_name("weights.yaml")):
            call(line)
        server.shutdown()
    output = capsys.readouterr().out
    assert "missing" in output and "verified" in output

"""Training: resuming to the bit, stopping, refusing, and what ends in the output folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from syncdiff.model import checkpoint as ckpt
from syncdiff.model import train as train_module
from syncdiff.model import training_run as run_module
from syncdiff.model.cli import run_train
from syncdiff.model.config import TrainConfig
from syncdiff.model.data import loader
from syncdiff.model.space import prepare
from syncdiff.model.train import TrainingError, train
from syncdiff.model.training_log import StepFigures
from syncdiff.model.training_run import learning_rate
from syncdiff.pipeline.config import ConfigError, to_mapping
from syncdiff.pipeline.plan import PlanError
from syncdiff.pipeline.records import CheckpointError
from syncdiff.pipeline.store.paths import StoreError, StorePaths
from syncdiff.pipeline.store.prep_run import locked

Tiny = Callable[..., TrainConfig]


def quiet(text: str) -> None:
    pass


def tensors(checkpoint: Path) -> dict[str, torch.Tensor]:
    files = ("model", "ema", "optimizer", "random")
    return {f"{f}/{k}": v for f in files for k, v in ckpt.read_tensors(checkpoint, f).items()}


def identical(a: Path, b: Path) -> bool:
    one, two = tensors(a), tensors(b)
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


@pytest.mark.parametrize(("noise", "rollout"), [(0.0, 0.0), (0.3, 0.5)])
def test_resuming_changes_no_bit(
    noise: float, rollout: float, store: Path, tiny: Tiny, tmp_path: Path
) -> None:
    """20 steps at once, and 10 and 10: the same weights, averages, optimiser and random numbers."""

    def config(out: str, steps: int) -> TrainConfig:
        pose = {"noise": noise}
        optim = {"steps": steps, "accumulate": 2, "ema_decay": 0.9}
        model, loader = {"pose": pose}, {"rollout": rollout}
        return tiny(data=str(store), out=str(tmp_path / out), model=model, optim=optim, loader=loader)

    straight = train(config("straight", 20), quiet)
    train(config("parts", 10), quiet)
    said: list[str] = []
    resumed = train(config("parts", 20), said.append)
    assert any("going on from" in line for line in said)
    assert straight.name == resumed.name == "step-0000020"
    assert identical(straight, resumed)
    assert ckpt.read_state(straight)["position"] == ckpt.read_state(resumed)["position"] == 40


def test_a_finished_run_is_left_alone(trained: Path, store: Path, tiny: Tiny) -> None:
    before = {p: p.stat().st_mtime_ns for p in (trained / "checkpoints").rglob("*")}
    train(tiny(data=str(store), out=str(trained)), quiet)
    assert {p: p.stat().st_mtime_ns for p in (trained / "checkpoints").rglob("*")} == before


def test_it_learns_and_averages(store: Path, tiny: Tiny, tmp_path: Path) -> None:
    losses: list[float] = []
    original = train_module.training_step

    def spy(*arguments: Any) -> StepFigures:
        figures = original(*arguments)
        losses.append(figures.loss)
        return figures

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_module, "training_step", spy)
        optim = {"steps": 120, "lr": 5e-3}
        config = tiny(data=str(store), out=str(tmp_path), optim=optim, diffusion={"loss_weight": "picture"})
        last = train(config, quiet)
    assert np.mean(losses[-30:]) < 0.9 * np.mean(losses[:30])
    model, ema = ckpt.read_tensors(last, "model"), ckpt.read_tensors(last, "ema")
    assert any(not torch.equal(model[name], ema[name]) for name in model)


def test_logs_strips_and_settings_are_written(store: Path, tiny: Tiny, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = tiny(data=str(store), out=str(tmp_path), log={"sample_every": 2, "every": 2})
    train(config, quiet)
    assert sorted(p.name for p in (tmp_path / "samples").iterdir()) == [
        "step-0000002.png",
        "step-0000004.png",
    ]
    events = EventAccumulator(str(tmp_path / "logs"))
    events.Reload()
    assert [entry.step for entry in events.Scalars("loss")] == [2, 4]
    tags = {f"val_loss/{t}" for t in (125, 375, 625, 875)}
    tags |= {f"val_psnr/{name}" for name in ("free_running", "true_pose", "no_pose")}
    assert {"lr", "samples_per_s", "grad_norm"} | tags <= set(events.Tags()["scalars"])
    written = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert written["optim"]["steps"] == 4
    state = ckpt.read_state(tmp_path / "checkpoints" / "step-0000004")
    assert state["preparation"]["mask"]["kind"] == "lower-half"
    assert json.loads(json.dumps(to_mapping(config))) == state["config"]


def test_strips_do_not_disturb_training(store: Path, tiny: Tiny, tmp_path: Path) -> None:
    runs = [
        train(tiny(data=str(store), out=str(tmp_path / str(every)), log={"sample_every": every}), quiet)
        for every in (0, 1)
    ]
    assert identical(*runs)


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_what_is_no_number_stops_before_the_update(
    where: str, store: Path, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Step, samples and newest checkpoint are named, and the weights are those of the step before."""
    config = tiny(data=str(store), out=str(tmp_path), log={"checkpoint_every": 2})
    original, calls = train_module.denoising_loss, iter(range(99))
    weights: list[torch.Tensor] = []

    def broken(network: torch.nn.Module, *arguments: Any) -> torch.Tensor:
        loss = original(network, *arguments)
        weights.append(next(iter(network.parameters())))
        weights.append(weights[-1].detach().clone())
        if next(calls) != 2:
            return loss
        if where == "gradient":  # a finite loss: the root's slope at 0 is infinite
            return loss + weights[-2].sub(weights[-1]).square().sum().sqrt()
        return loss * float("nan")

    monkeypatch.setattr(train_module, "denoising_loss", broken)
    with pytest.raises(
        TrainingError, match=r"step 3: the loss is (nan|0\.\d+), the norm .* nan.*lrs2/train/"
    ) as error:
        train(config, quiet)
    newest = tmp_path / "checkpoints" / "step-0000002"
    assert ckpt.newest(tmp_path / "checkpoints") == newest and str(newest) in str(error.value)
    assert torch.equal(weights[-2], weights[-1])


def test_rolled_out_pose_frames_are_the_networks_own(store: Path, tiny: Tiny, tmp_path: Path) -> None:
    """Inside the mask they are made, outside they are the source; the other pose frames stay."""
    run = run_module.open_run(tiny(data=str(store), out=str(tmp_path), loader={"rollout": 0.7}), quiet)
    batch = next(iter(loader(run.config, str(store), run.spec)))
    assert batch.roll_out is not None
    conditions = prepare(batch, run.space)[2]
    where, mask = batch.roll_out.positions, batch.roll_out.batch.mask.expand(-1, 3, -1, -1)
    rolled = train_module.roll_out(run, batch.roll_out, conditions).pose
    assert torch.equal(rolled[where][~mask], conditions.pose[where][~mask])
    assert not torch.isclose(rolled[where][mask], conditions.pose[where][mask], atol=0.02).all()
    others = [i for i in range(len(batch.names)) if i not in where.tolist()]
    assert torch.equal(rolled[others], conditions.pose[others])


def test_two_runs_cannot_train_in_one_folder(store: Path, tiny: Tiny, tmp_path: Path) -> None:
    config = tiny(data=str(store), out=str(tmp_path), optim={"steps": 1})
    with locked(StorePaths(tmp_path)), pytest.raises(PlanError, match="another run is writing"):
        train(config, quiet)
    assert ckpt.newest(tmp_path / "checkpoints") is None
    train(config, quiet)


def test_a_checkpoint_without_a_setting_had_its_default(store: Path, tiny: Tiny, tmp_path: Path) -> None:
    last = train(tiny(data=str(store), out=str(tmp_path), optim={"steps": 1}), quiet)
    state = json.loads((last / "state.json").read_text())
    del state["config"]["loader"]["rollout"], state["content_sha256"]
    (last / "state.json").write_text(json.dumps(state))
    train(tiny(data=str(store), out=str(tmp_path), optim={"steps": 2}), quiet)
    with pytest.raises(CheckpointError, match=r"loader.rollout: 0.0 -> 0.5"):
        train(tiny(data=str(store), out=str(tmp_path), loader={"rollout": 0.5}), quiet)


def command(store: Path, out: Path, *more: str) -> list[str]:
    program = "from syncdiff.model.cli import train_main; train_main()"
    return [
        sys.executable,
        "-c",
        program,
        str(out.parent / "c.yaml"),
        "--data",
        str(store),
        "--out",
        str(out),
        *more,
    ]


def write_config(config: TrainConfig, path: Path) -> None:
    path.write_text(yaml.safe_dump(json.loads(json.dumps(to_mapping(config)))))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_the_same_command_goes_on(
    number: int, store: Path, tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_config(tiny(optim={"steps": 100_000}), tmp_path / "c.yaml")
    out = tmp_path / "run"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command(store, out), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("step 3/"):
                process.send_signal(number)
                break
        rest = process.stderr.read()
        assert process.wait(60) == 0
    assert "the same command goes on from there" in rest
    saved = ckpt.newest(out / "checkpoints")
    assert saved is not None
    run_train(tmp_path / "c.yaml", str(store), str(out), steps=ckpt.read_state(saved)["step"] + 1)
    assert f"going on from {saved}" in capsys.readouterr().err.replace("\n", "")


def test_another_configuration_is_refused(trained: Path, store: Path, tiny: Tiny) -> None:
    other = tiny(data=str(store), out=str(trained), optim={"lr": 0.5}, model={"pose": {"width": 3}})
    with pytest.raises(CheckpointError) as error:
        train(other, quiet)
    assert "optim.lr: 0.001 -> 0.5" in str(error.value)
    assert "model.pose.width: 2 -> 3" in str(error.value)
    assert "--overwrite" in str(error.value)


def test_other_data_are_refused(
    trained: Path, make_store: Callable[..., Path], tmp_path: Path, tiny: Tiny
) -> None:
    other = make_store(tmp_path / "other", {"train": [15, 16]})
    with pytest.raises(CheckpointError, match="not those that it was trained on"):
        train(tiny(data=str(other), out=str(trained)), quiet)


def test_what_does_not_matter_may_change(store: Path, tiny: Tiny, tmp_path: Path) -> None:
    train(tiny(data=str(store), out=str(tmp_path), optim={"steps": 2}), quiet)
    said: list[str] = []
    changed = tiny(
        data=str(store), out=str(tmp_path), optim={"steps": 3}, log={"every": 7}, loader={"workers": 2},
        diffusion={"sampling_steps": 9, "sampler": "dpm++"},
    )  # fmt: skip
    assert train(changed, said.append).name == "step-0000003"
    assert any("samples come in another order" in line for line in said)


def test_more_steps_that_change_a_falling_rate_are_said(store: Path, tiny: Tiny, tmp_path: Path) -> None:
    for decay, expected in ((0.5, ["optim.steps was 4 and is 8", "at 0.001 instead of 0"]), (0.0, [])):
        said: list[str] = []
        for steps in (4, 8):
            optim = {"steps": steps, "final_decay": decay}
            train(tiny(data=str(store), out=str(tmp_path / str(decay)), optim=optim), said.append)
        lines = [line for line in said if "optim.steps" in line]
        assert len(lines) == min(1, len(expected)) and all(part in lines[0] for part in expected)


@pytest.mark.parametrize(
    ("batches_per_step", "accumulate", "expected"),
    [(4, 2, "processes: 2 instead of 1, each with 2 x 4 samples a step: 16 in all, as before"),
     (1, 1, "each with 1 x 4 samples a step: 8 in all instead of 4, which these cannot share")],
)  # fmt: skip
def test_another_number_of_processes_keeps_the_samples_of_a_step_or_says_so(
    batches_per_step: int, accumulate: int, expected: str, store: Path, tiny: Tiny, tmp_path: Path
) -> None:
    said: list[str] = []
    run = run_module.open_run(tiny(data=str(store), out=str(tmp_path)), said.append)
    run.accelerator = SimpleNamespace(num_processes=2)  # type: ignore[assignment]
    state = {"step": 3, "position": 12, "streams": 1, "config": to_mapping(run.config)}
    run_module.go_on(run, {**state, "batches_per_step": batches_per_step})
    assert any(expected in line for line in said)
    assert (run.step, run.accumulate, run.position) == (3, accumulate, 6)


def test_without_clips_to_validate_with_strips_of_training_frames_are_called_so(
    make_store: Callable[..., Path], tiny: Tiny, tmp_path: Path
) -> None:
    root = make_store(tmp_path / "data", {"train": [12, 12], "val": [12]}, silent=(2,))
    for split in ("dev", "val"):  # there is none, or none with sound
        said: list[str] = []
        log, loader = {"sample_every": 1}, {"val_split": split}
        out = str(tmp_path / split)
        train(tiny(data=str(root), out=out, optim={"steps": 1}, log=log, loader=loader), said.append)
        assert any(f"no split '{split}' with clips" in line and "trained on" in line for line in said)
        assert (tmp_path / split / "samples" / "step-0000001.png").is_file()


def test_a_launcher_that_starts_one_process_of_several_is_not_passed_over(
    store: Path, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`accelerate launch --cpu --num_processes 2` sets both and starts one."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    monkeypatch.setenv("MASTER_PORT", "29500")
    said: list[str] = []
    train(tiny(data=str(store), out=str(tmp_path), optim={"steps": 1}), said.append)
    assert any("started one process" in line and "torchrun --nproc_per_node" in line for line in said)


def test_start_again_removes_the_run_and_nothing_else(store: Path, tiny: Tiny, tmp_path: Path) -> None:
    train(tiny(data=str(store), out=str(tmp_path)), quiet)
    (tmp_path / "notes.txt").write_text("mine")
    run_module.start_again(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".work", "config.yaml", "notes.txt"]
    with locked(StorePaths(tmp_path)), pytest.raises(PlanError, match="another run is writing"):
        run_module.start_again(tmp_path)  # its checkpoints are not taken from under it


def test_no_gpu_where_one_is_asked_for(
    store: Path, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"asks for cuda.*--set optim.device=cpu"):
        train(tiny(data=str(store), out=str(tmp_path / "out"), optim={"device": "cuda"}), quiet)
    assert not (tmp_path / "out").exists()


def test_what_is_missing_is_said_before_anything_is_written(store: Path, tiny: Tiny, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    for config, error, message in (
        (tiny(out=out), ConfigError, "needs data"),
        (tiny(data=str(store)), ConfigError, "needs data"),
        (tiny(data=str(tmp_path), out=out), StoreError, "dataset.json is missing"),
        (tiny(data=str(store), out=out, loader={"train_split": "dev"}), StoreError, "no split 'dev'"),
        (
            tiny(data=str(store), out=out, model={"audio": {"features": "avhubert"}}),
            ConfigError,
            "no features",
        ),
    ):
        with pytest.raises(error, match=message):
            train(config, quiet)
    assert not Path(out).exists()


def test_a_split_without_sound_is_refused(
    make_store: Callable[..., Path], tiny: Tiny, tmp_path: Path
) -> None:
    root = make_store(tmp_path / "data", {"train": [12, 12]}, silent=(0, 1))
    with pytest.raises(ConfigError, match="no clip with sound"):
        train(tiny(data=str(root), out=str(tmp_path / "out")), quiet)


def test_untrained_features_are_called_so(
    make_store: Callable[..., Path], tiny: Tiny, tmp_path: Path
) -> None:
    root = make_store(tmp_path / "data", {"train": [12, 12]})
    about = root / "features" / "logfbank" / "extractor.json"
    about.write_text(json.dumps({**json.loads(about.read_text()), "untrained": True}))
    said: list[str] = []
    train(tiny(data=str(root), out=str(tmp_path / "out"), optim={"steps": 1}), said.append)
    assert any("untrained network" in line for line in said)


def test_a_full_disk_does_not_end_training(
    store: Path, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(data=str(store), out=str(tmp_path), log={"checkpoint_every": 1})
    original, calls = ckpt.save_file, iter(range(99))

    def full(*arguments: Any) -> None:
        if next(calls) < 2:
            raise OSError(28, "No space left on device")
        original(*arguments)

    monkeypatch.setattr(ckpt, "save_file", full)
    said: list[str] = []
    assert train(config, said.append).name == "step-0000004"
    assert sum("No space left on device" in line and "Training goes on" in line for line in said) == 2


def test_a_disk_that_stays_full_is_an_error_at_the_end(
    store: Path, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ckpt, "save_file", full)
    with pytest.raises(CheckpointError, match=r"could not save step 4.*none was written before"):
        train(tiny(data=str(store), out=str(tmp_path)), quiet)


@pytest.mark.parametrize("kind", ["vector", "none", "off"])
def test_every_bottleneck_trains(kind: str, store: Path, tiny: Tiny, tmp_path: Path) -> None:
    config = tiny(
        data=str(store), out=str(tmp_path), model={"pose": {"bottleneck": kind}}, optim={"steps": 1}
    )
    assert train(config, quiet).is_dir()


def test_latent_space_trains(store: Path, tiny: Tiny, tmp_path: Path, autoencoder: Path) -> None:
    model = {"space": "latent", "autoencoder": str(autoencoder)}
    config = tiny(
        data=str(store), out=str(tmp_path), model=model, optim={"steps": 2}, log={"sample_every": 2}
    )
    last = train(config, quiet)
    assert not any("autoencoder" in name for name in ckpt.read_tensors(last, "model"))
    for wrong, message in (("nowhere", "is no folder"), (str(tmp_path), "autoencoder")):
        broken = {"space": "latent", "autoencoder": wrong}
        with pytest.raises(ConfigError, match=message):
            train(tiny(data=str(store), out=str(tmp_path / "b"), model=broken), quiet)


def test_a_latent_resolution_that_does_not_fit_is_refused(
    store: Path, tiny: Tiny, tmp_path: Path, autoencoder: Path
) -> None:
    model = {"space": "latent", "autoencoder": str(autoencoder), "resolution": 36}
    with pytest.raises(ConfigError, match="not a multiple of 8 in latent space"):
        train(tiny(data=str(store), out=str(tmp_path), model=model), quiet)


def test_rates_warm_up_and_fall() -> None:
    config = TrainConfig()
    config = replace(config, optim=replace(config.optim, lr=1.0, warmup_steps=4, steps=100, final_decay=0.5))
    rates = [learning_rate(config.optim, step) for step in range(100)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert (
        rates[49] == rates[50] == 1.0 and rates[75] == pytest.approx(0.5) and rates[99] == pytest.approx(0.02)
    )


def test_accumulated_batches_are_one_large_batch(store: Path, tiny: Tiny, tmp_path: Path) -> None:
    """Two batches of 4 give the gradient of one of 8; the noise differs, so only the sampling is compared."""
    names: list[str] = []
    original = train_module.prepare

    def spy(batch: Any, space: Any) -> Any:
        names.extend(batch.names)
        return original(batch, space)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_module, "prepare", spy)
        for size, parts in ((4, 2), (8, 1)):
            optim = {"steps": 2, "batch_size": size, "accumulate": parts}
            train(tiny(data=str(store), out=str(tmp_path / str(size)), optim=optim), quiet)
    assert names[:16] == names[16:]


@pytest.mark.long
def test_two_processes_train_and_resume(store: Path, tiny: Tiny, tmp_path: Path) -> None:
    write_config(tiny(loader={"workers": 1}), tmp_path / "c.yaml")
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node",
        "2",
        "-m",
        "syncdiff.model.cli",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    arguments = [str(tmp_path / "c.yaml"), "--data", str(store), "--out", str(tmp_path / "run")]
    for steps in ("3", "5"):
        done = subprocess.run(
            [*launch, *arguments, "--steps", steps], capture_output=True, text=True, env=environment
        )
        assert done.returncode == 0, done.stderr
    state = ckpt.read_state(tmp_path / "run" / "checkpoints" / "step-0000005")
    assert state["streams"] == 2
    assert {"cpu.0", "cpu.1"} <= ckpt.read_tensors(
        tmp_path / "run" / "checkpoints" / "step-0000005", "random"
    ).keys()

"""The configuration: what it refuses, what it reads, and that every file in configs/ loads."""

from __future__ import annotations

from pathlib import Path

import pytest

from syncdiff.model.config import from_mapping, load_config
from syncdiff.pipeline.config import ConfigError, to_mapping

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "configs").glob("train-*.yaml"))


def test_defaults_make_sense_and_survive_a_round_trip() -> None:
    config = from_mapping({})
    assert from_mapping(to_mapping(config)) == config


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"optm": {}}, "configuration: unknown key 'optm'; did you mean 'optim'?"),
        ({"optim": {"learning_rate": 1}}, "unknown key 'optim.learning_rate'"),
        (
            {"model": {"pose": {"widht": 3}}},
            "unknown key 'model.pose.widht'; did you mean 'model.pose.width'?",
        ),
        ({"model": {"resolution": "128"}}, "model.resolution: expected a whole number > 0, got '128'"),
        ({"model": {"resolution": 100}}, "model: resolution: 100 is not a multiple of 8"),
        (
            {"model": {"space": "latents"}},
            "model.space: expected pixel or latent, got 'latents'; did you mean 'latent'?",
        ),
        ({"model": {"space": "latent"}}, "space latent and autoencoder need one another"),
        ({"model": {"audio": {"window": 4}}}, "model.audio.window: 4 is not odd"),
        ({"model": {"audio": {"drop": 1.0}}}, "model.audio.drop: expected a number >= 0 and < 1, got 1.0"),
        ({"model": {"audio": {"finetune_layers": 3}}}, "needs audio.checkpoint"),
        ({"model": {"unet": {"channels": [60, 64], "attention": [True, True]}}}, "model.unet: channels: 60"),
        (
            {"model": {"unet": {"channels": [64], "attention": [True, True]}}},
            "differ in their number of levels",
        ),
        ({"model": {"pose": {"noise": -1}}}, "model.pose.noise: expected a number >= 0, got -1"),
        ({"diffusion": {"zero_terminal_snr": True}}, "zero_terminal_snr needs v_prediction"),
        ({"diffusion": {"data_std": 0.5}}, "diffusion: data_std: needs v_prediction"),
        ({"diffusion": {"data_std": 0.0}}, "diffusion.data_std: expected a number > 0 or null, got 0.0"),
        ({"diffusion": {"prior": "identity"}}, "prior: needs data_std"),
        ({"loader": {"shift": 0.5}}, "loader.shift: expected a number >= 0 and < 0.5, got 0.5"),
        ({"diffusion": {"sampling_steps": 1001}}, "sampling_steps: 1001"),
        ({"diffusion": {"beta_start": 0.1, "beta_end": 0.01}}, "beta_start"),
        ({"optim": {"lr": 0.0}}, "optim.lr: expected a number > 0, got 0.0"),
        ({"optim": {"ema_decay": 1.0}}, "optim.ema_decay: expected a number >= 0 and < 1, got 1.0"),
        ({"optim": {"betas": [0.9]}}, "optim.betas.1: expected a number"),
        ({"optim": {"steps": True}}, "optim.steps: expected a whole number > 0, got True"),
        ({"loader": {"workers": -1}}, "loader.workers: expected a whole number >= 0, got -1"),
        ({"log": {"keep": 0}}, "log.keep: expected a whole number > 0, got 0"),
        ({"model": 3}, "model: expected keys and values, got 3"),
    ],
)
def test_refused(mapping: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        from_mapping(mapping)
    assert message in str(error.value)


def test_off_and_no_are_words_not_booleans(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("model: {pose: {bottleneck: off}}\noptim: {precision: no}\n")
    config = load_config(file)
    assert config.model.pose.bottleneck == "off"
    assert config.optim.precision == "no"


def test_numbers_without_a_dot_are_numbers(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("optim: {lr: 1e-3}\n")
    assert load_config(file).optim.lr == 1e-3


def test_overrides_win_and_are_checked(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("optim: {steps: 7}\n")
    assert load_config(file, ["optim.steps=9", "model.audio.features=mel"]).optim.steps == 9
    for wrong, message in (
        ("optim.stesp=9", "did you mean 'optim.steps'"),
        ("optim.steps", "section.key=value"),
        ("optim.steps.more=1", "optim.steps: expected a whole number"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_config(file, [wrong])


def test_a_file_may_hold_what_differs_from_another(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("optim: {lr: 0.5, steps: 7}\nseed: 3\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\noptim: {steps: 8}\n")
    config = load_config(tmp_path / "b.yaml", ["seed=4"])
    assert (config.optim.lr, config.optim.steps, config.seed) == (0.5, 8, 4)
    (tmp_path / "a.yaml").write_text("base: b.yaml\n")
    with pytest.raises(ConfigError, match="its own base"):
        load_config(tmp_path / "b.yaml")


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    for content, name in ((b"\xff\xfe\x00", "binary"), (b"a: [", "broken"), (b"- 1", "list")):
        file = tmp_path / f"{name}.yaml"
        file.write_bytes(content)
        with pytest.raises(ConfigError, match=name):
            load_config(file)
    with pytest.raises(ConfigError, match="missing"):
        load_config(tmp_path / "missing.yaml")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_loads_and_opens_with_its_command(path: Path) -> None:
    config = load_config(path)
    head = path.read_text().split("\n\n")[0]
    assert all(line.startswith("#") for line in head.splitlines())
    assert f"syncdiff-train {path.name}" in head
    assert "GiB" in head
    assert config.data is None and config.out is None, "where data lies is not the configuration's business"


def test_there_are_configs() -> None:
    names = {path.stem for path in CONFIGS}
    assert {"train-tiny", "train-lrs2", "train-256"} <= names

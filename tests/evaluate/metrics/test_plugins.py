"""A metric of one's own from a file: the example of CONTRIBUTING, and files that do not do."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest

from syncdiff.evaluate.metrics.plugins import all_entries, file_entries
from syncdiff.evaluate.metrics.registry import METRICS, choose_metrics
from syncdiff.evaluate.protocol import Protocol
from syncdiff.evaluate.records import Case
from syncdiff.evaluate.score_clip import Scorer, Task, Work
from syncdiff.pipeline.config import ConfigError

CONTRIBUTING = Path(__file__).parents[3] / "CONTRIBUTING.md"


@pytest.fixture
def brightness(tmp_path: Path) -> Path:
    (example,) = (
        code
        for code in re.findall(r"```python\n(.*?)```", CONTRIBUTING.read_text(), re.S)
        if "Brightness" in code
    )
    path = tmp_path / "brightness.py"
    path.write_text(example)
    return path


def test_the_documented_example_scores_a_clip(brightness: Path, tmp_path: Path, media: ModuleType) -> None:
    frames = media.moving_frames(3, 32, 24) // 2
    made = media.picture_clip(tmp_path / "made.mkv", frames + 10)
    true = media.picture_clip(tmp_path / "true.mkv", frames)
    work = Work(Protocol(), (), tmp_path / "cache", metric_files=(brightness,))
    task = Task(Case("ours", "a", made, true, made), ("brightness",))
    (outcome,) = Scorer(work).score(task).outcomes
    assert outcome.values["brightness"] == pytest.approx(10, abs=1)
    assert str(outcome.settings["from"]).startswith("brightness.py sha256:")
    assert not Scorer(work).score(task).outcomes[0].new
    brightness.write_text(brightness.read_text() + "# changed\n")
    assert Scorer(work).score(task).outcomes[0].new


def test_it_is_chosen_where_its_reference_is_a_ground_truth(brightness: Path) -> None:
    entries = all_entries((), (brightness,))
    assert list(entries) == [*METRICS, "brightness"]
    names = ("psnr", "brightness")
    assert choose_metrics(Protocol(metrics=("psnr",)), names, entries=entries).metrics == names
    unsynced = choose_metrics(Protocol(reference="picture"), ("brightness",), entries=entries)
    assert unsynced.not_computed[0].reason == "not-in-protocol"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("x = 1", "no complete subclass"),
        ("1 / 0", "ZeroDivisionError"),
        ("def", "SyntaxError"),
        (None, "FileNotFoundError"),
    ],
)
def test_a_file_that_does_not_do(tmp_path: Path, code: str | None, message: str) -> None:
    path = tmp_path / "mine.py"
    if code is not None:
        path.write_text(code)
    with pytest.raises(ConfigError, match=message):
        file_entries(path)


def test_names_and_values_are_not_taken_twice(brightness: Path) -> None:
    text = brightness.read_text()
    brightness.write_text(text.replace('name = "brightness"', 'name = "psnr"'))
    with pytest.raises(ConfigError, match="a metric 'psnr' already"):
        all_entries((), (brightness,))
    brightness.write_text(text.replace('Value("brightness"', 'Value("ssim"'))
    with pytest.raises(ConfigError, match="the value 'ssim'"):
        all_entries((), (brightness,))

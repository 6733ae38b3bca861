"""A flipped byte, a truncation or an absence in every kind of file: it is noticed, named and mended."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from .harness import Argv, Row, difference, executable, run, tree

STORE_FILES = (
    "dataset.json",
    "rejects.parquet",
    "clips/*.parquet",
    "features/logfbank/*.parquet",
    "features/logfbank/extractor.json",
    "features/avhubert-audio-final/*.parquet",
    "features/avhubert-audio-final/extractor.json",
    ".work/identity.json",
    ".work/inputs.json",
    ".work/done/*.json",
    ".work/features/*/*.json",
)


def damage(path: Path, how: str, moments: random.Random) -> None:
    """Flip one bit, cut off the end, or remove the file."""
    data = bytearray(path.read_bytes())
    if how == "absent":
        path.unlink()
    elif how == "truncated":
        path.write_bytes(data[: moments.randrange(len(data))])
    else:
        data[moments.randrange(len(data))] ^= 1 << moments.randrange(8)
        path.write_bytes(data)


@pytest.fixture(scope="module")
def whole(small_store: Path, untrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small data set with added features."""
    store = tmp_path_factory.mktemp("whole") / "store"
    shutil.copytree(small_store, store)
    code, said = run(executable("syncdiff-prep"), "features", "avhubert", store, "--checkpoint", untrained)
    assert code == 0, said
    return store


@pytest.mark.parametrize("how", ["flipped", "truncated", "absent"])
@pytest.mark.parametrize("pattern", STORE_FILES)
def test_store(
    row: Callable[[str, int], Row],
    times: Callable[[int], int],
    prepare: Callable[[Path], Argv],
    untrained: Path,
    whole: Path,
    tmp_path: Path,
    pattern: str,
    how: str,
) -> None:
    """`verify` names what is damaged, and one mending gives the undamaged bytes."""
    line = row(f"store: {pattern} {how}", 5)
    moments = random.Random(5)
    prep = executable("syncdiff-prep")
    for _ in range(times(2)):
        store = tmp_path / "store"
        shutil.copytree(whole, store)
        victim = moments.choice(sorted(store.glob(pattern)))
        damage(victim, how, moments)
        problems = []
        if not pattern.startswith(".work"):
            code, said = run(prep, "verify", store)
            if code == 0 or victim.name not in said or "Traceback" in said:
                problems.append(f"verify ended with {code}: {said[-200:]}")
        for command in (
            [*prepare(store)],
            [prep, "features", "avhubert", store, "--checkpoint", untrained],
        ):
            code, said = run(*command)
            if code or "Traceback" in said:
                problems.append(f"{command[1]} ended with {code}: {said[-200:]}")
        if lost := difference(tree(whole), tree(store)):
            problems.append(f"differs: {lost}")
        line.count("; ".join(problems))
        shutil.rmtree(store)
    assert not line.lost


@pytest.mark.parametrize("how", ["flipped", "truncated", "absent"])
def test_checkpoint_of_a_training(
    row: Callable[[str, int], Row],
    times: Callable[[int], int],
    small_store: Path,
    tmp_path: Path,
    how: str,
) -> None:
    """Going on from a damaged checkpoint, and generating with it, end with a sentence that names the file."""
    settings = ("optim.steps=8", "optim.batch_size=4", "log.checkpoint_every=4")
    sets = [part for setting in settings for part in ("--set", setting)]
    done = tmp_path / "run"
    train = [executable("syncdiff-train"), "train-tiny.yaml", "--data", small_store]
    code, said = run(*train, "--out", done, *sets)
    assert code == 0, said
    line = row(f"checkpoint: {how}", 6)
    moments = random.Random(6)
    names = sorted(p.relative_to(done) for p in done.rglob("*") if p.is_file() and p.suffix != ".0")
    wanted = [n for n in names if n.suffix in (".safetensors", ".json")]
    for name in moments.sample(wanted, min(times(8), len(wanted))):
        broken = tmp_path / "broken"
        shutil.copytree(done, broken)
        damage(broken / name, how, moments)
        code, said = run(
            *train, "--out", broken, *sets[:-2], "--set", "log.checkpoint_every=4", "--steps", "12"
        )
        line.count(said[-500:] if "Traceback" in said else "")
        out = tmp_path / "results"
        generate = [executable("syncdiff-generate"), "--checkpoint", broken, "--data", small_store]
        code, said = run(*generate, "--split", "train", "--out", out)
        line.count(said[-500:] if "Traceback" in said else "")
        shutil.rmtree(broken)
        shutil.rmtree(out, ignore_errors=True)
    assert not line.lost


@pytest.mark.parametrize("how", ["flipped", "truncated", "absent"])
def test_cache_of_an_evaluation(
    row: Callable[[str, int], Row],
    times: Callable[[int], int],
    small_raw: Path,
    tmp_path: Path,
    how: str,
) -> None:
    """Damaged cached results are computed again, to the same figures."""
    out = tmp_path / "eval"
    evaluate = [executable("syncdiff-eval"), small_raw, "--reference", small_raw, "--out", out]
    command = [*evaluate, "--metrics", "psnr,ssim,lmd"]
    code, said = run(*command)
    assert code == 0, said
    table = (out / "per_clip.csv").read_bytes()
    line = row(f"evaluation's cache: {how}", 7)
    moments = random.Random(7)
    cached = sorted(p for p in tmp_path.rglob("*") if p.is_file() and "cache" in str(p.relative_to(tmp_path)))
    assert cached
    for victim in moments.sample(cached, min(times(6), len(cached))):
        if victim.exists():
            damage(victim, how, moments)
        code, said = run(*command)
        same = (out / "per_clip.csv").read_bytes() == table
        line.count("" if code == 0 and same and "Traceback" not in said else said[-300:])
    assert not line.lost

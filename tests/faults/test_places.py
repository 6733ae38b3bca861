"""Where a run may listen and write: loopback only, a full or forbidden disk, two runs at once."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .harness import Argv, Command, Row, difference, executable, run, tree


def listening(pids: set[int]) -> set[str]:
    """Addresses (hex, as /proc/net/tcp has them) at which these processes listen."""
    inodes = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                target = str(link.readlink())
            except OSError:
                continue
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for entry in Path(table).read_text().splitlines()[1:]:
            fields = entry.split()
            if fields[3] == "0A" and fields[9] in inodes:
                found.add(fields[1].split(":")[0])
    return found


LOOPBACK = {"0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"}


def test_a_local_run_listens_on_loopback_only(
    row: Callable[[str, int], Row], prepare: Callable[[Path], Argv], tmp_path: Path
) -> None:
    command = Command(*prepare(tmp_path / "store"))
    addresses: set[str] = set()
    while command.process.poll() is None:
        addresses |= listening({command.process.pid, *command.processes()})
        time.sleep(0.2)
    code, said = command.end()
    line = row("listening sockets of a local run", 0)
    for address in sorted(addresses):
        line.count("" if address in LOOPBACK else f"listens at {address} (hexadecimal)")
    assert code == 0, said
    assert addresses
    assert not line.lost


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
@pytest.mark.parametrize("size_kib", [64, 256, 700])
def test_a_full_disk(
    row: Callable[[str, int], Row],
    prepare: Callable[[Path], Argv],
    small_store: Path,
    tmp_path: Path,
    size_kib: int,
) -> None:
    """The run ends with a sentence; with room made, the same command gives the whole."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_kib}k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    line = row(f"disk of {size_kib} KiB", 0)
    try:
        code, said = run(*prepare(disk / "store"))
        problem = "" if code != 0 and "Traceback" not in said and "error:" in said else said[-500:]
        grow = ["mount", "-o", "remount,size=200m", str(disk)]
        subprocess.run(grow, check=True, capture_output=True)
        code, said = run(*prepare(disk / "store"))
        problem = problem or (said[-500:] if code else difference(tree(small_store), tree(disk / "store")))
        line.count(problem)
    finally:
        subprocess.run(["umount", str(disk)], check=False)
    assert not line.lost


def test_output_removed_in_the_middle(
    row: Callable[[str, int], Row], prepare: Callable[[Path], Argv], small_store: Path, tmp_path: Path
) -> None:
    out = tmp_path / "store"
    command = Command(*prepare(out))
    while command.process.poll() is None and not list(out.glob("clips/*.parquet")):
        time.sleep(0.05)
    for path in sorted(out.rglob("*"), reverse=True):
        path.unlink(missing_ok=True) if not path.is_dir() else None
    code, said = command.end()
    line = row("output removed in the middle", 0)
    assert "Traceback" not in said, said[-1500:]
    code, said = run(*prepare(out))
    line.count(said[-300:] if code else difference(tree(small_store), tree(out)))
    assert not line.lost


def test_two_runs_on_one_output(
    row: Callable[[str, int], Row], prepare: Callable[[Path], Argv], small_store: Path, tmp_path: Path
) -> None:
    """The second ends at once with a sentence; the first is not harmed."""
    out = tmp_path / "store"
    first = Command(*prepare(out))
    while first.process.poll() is None and not (out / ".work" / "identity.json").exists():
        time.sleep(0.05)
    code, said = run(*prepare(out))
    line = row("two runs on one output: prep", 0)
    assert code != 0
    assert "another run" in said
    code, said = first.end()
    line.count(said[-300:] if code else difference(tree(small_store), tree(out)))
    assert not line.lost


def test_two_feature_passes_on_one_store(
    row: Callable[[str, int], Row], small_store: Path, untrained: Path, tmp_path: Path
) -> None:
    """The second ends with a sentence, whichever of the two is first at the lock; the bytes are as of one."""
    stores = {name: tmp_path / name for name in ("alone", "together")}
    for store in stores.values():
        shutil.copytree(small_store, store)
    prep = executable("syncdiff-prep")
    pass_over: dict[str, Argv] = {
        name: [prep, "features", "avhubert", store, "--checkpoint", untrained]
        for name, store in stores.items()
    }
    code, said = run(*pass_over["alone"])
    assert code == 0, said
    both = [Command(*pass_over["together"]) for _ in range(2)]
    ends = [command.end() for command in both]
    line = row("two runs on one output: features", 0)
    for code, said in ends:
        clean = code == 0 or "another run" in said
        line.count("" if clean and "Traceback" not in said else f"ended with {code}: {said[-400:]}")
    line.count("" if any(code == 0 for code, _ in ends) else "neither went through")
    line.count(difference(tree(stores["alone"]), tree(stores["together"])))
    assert not line.lost


def test_two_evaluations_into_one_folder(
    row: Callable[[str, int], Row], small_raw: Path, tmp_path: Path
) -> None:
    """Both go through, and what they leave is what one alone leaves."""

    def evaluate(out: Path) -> Argv:
        pairs: Argv = [executable("syncdiff-eval"), small_raw, "--reference", small_raw]
        return [*pairs, "--metrics", "psnr,ssim,lmd", "--out", out]

    code, said = run(*evaluate(tmp_path / "alone"))
    assert code == 0, said
    both = [Command(*evaluate(tmp_path / "together")) for _ in range(2)]
    line = row("two runs on one output: eval", 0)
    for code, said in [command.end() for command in both]:
        line.count("" if code == 0 and "Traceback" not in said else f"ended with {code}: {said[-400:]}")
    tables = [
        {n: d for n, d in tree(tmp_path / name).items() if n.endswith(".csv")}
        for name in ("alone", "together")
    ]
    assert tables[0]
    line.count(difference(*tables))
    assert not line.lost


@pytest.fixture
def plain_user(small_raw: Path, small_store: Path, untrained: Path) -> Iterator[tuple[Argv, Path]]:
    """How a command is run by `nobody`, and a folder that all may enter with a copy of the inputs."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("root alone can become another user")
    user: Argv = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    if subprocess.run([*user, executable("python"), "-c", ""], check=False, capture_output=True).returncode:
        pytest.skip("a plain user may not run the Python that is installed here")
    with tempfile.TemporaryDirectory(prefix="syncdiff-faults-") as name:
        place = Path(name)
        shutil.copytree(small_raw, place / "raw")
        shutil.copytree(small_store, place / "store")
        shutil.copy(untrained, place)
        (place / "home").mkdir()
        for path in (place, *place.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        os.chown(place / "home", 65534, 65534)
        yield [*user, "env", f"HOME={place / 'home'}", f"TMPDIR={place / 'home'}"], place


def test_permission_denied_to_a_plain_user(
    row: Callable[[str, int], Row], settings: Path, plain_user: tuple[Argv, Path], tmp_path: Path
) -> None:
    """Each command names the place that it may not write, and changes nothing."""
    user, place = plain_user
    raw, store, weights = place / "raw", place / "store", place / "untrained.safetensors"
    shutil.copy(settings, place / "small.yaml")
    (place / "small.yaml").chmod(0o644)
    before = tree(place)
    prep, out = executable("syncdiff-prep"), place / "out"
    commands: dict[str, Argv] = {
        "prep": [prep, "folder", raw, "--out", out],
        "prep, again": [prep, "folder", raw, "--out", store, "--config", place / "small.yaml"],
        "features": [prep, "features", "avhubert", store, "--checkpoint", weights],
        "inspect": [prep, "inspect", store],
        "export": [prep, "export", "frames", store, out],
        "sample": [prep, "sample", out],
        "convert": [prep, "weights", "untrained", place / "other.safetensors"],
        "train": [executable("syncdiff-train"), "train-tiny.yaml", "--data", store, "--out", out],
        "eval": [executable("syncdiff-eval"), raw, "--reference", raw, "--metrics", "psnr", "--out", out],
    }
    line = row("permission denied to a plain user", 0)
    for name, command in commands.items():
        code, said = run(*user, *command)
        clean = code > 0 and "Traceback" not in said and "error:" in said and str(place) in said
        line.count("" if clean else f"{name} ended with {code}: {said[-400:]}")
    assert difference(before, tree(place)) == ""
    assert not line.lost


def test_a_source_that_a_plain_user_may_not_read_is_a_reject(
    row: Callable[[str, int], Row], plain_user: tuple[Argv, Path]
) -> None:
    user, place = plain_user
    (place / "raw/1.mp4").chmod(0)
    out = place / "home" / "store"
    code, said = run(*user, executable("syncdiff-prep"), "folder", place / "raw", "--out", out)
    line = row("a source that may not be read", 0)
    line.count("" if code == 0 and "1.mp4: unreadable-file" in said else said[-400:])
    assert not line.lost


def test_read_only_output(row: Callable[[str, int], Row], prepare: Callable[[Path], Argv]) -> None:
    line = row("output that cannot be written", 0)
    for place in ("/proc/store", "/dev/null/store", "/sys/store"):
        code, said = run(*prepare(Path(place)))
        line.count("" if code and "Traceback" not in said and place in said else said[-300:])
    assert not line.lost


def test_help_is_not_disturbed_by_a_missing_home(tmp_path: Path) -> None:
    code, said = run("env", "-u", "HOME", executable("syncdiff-prep"), "--help")
    assert code == 0, said

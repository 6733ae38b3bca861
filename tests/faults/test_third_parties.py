"""What the packages we load do by themselves: nothing is looked up, called or downloaded unasked."""

from __future__ import annotations

import os
import shutil
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from .harness import Argv, Row, executable, run

# Run by Python in every process that is started: names that are looked up and connections that leave the
# machine are written down and refused. Datagrams to a fixed address send nothing: Ray learns its own by them.
TRAP = """
import os, socket
log = os.environ["NETWORK_LOG"]
look_up, connect = socket.getaddrinfo, socket.socket.connect
LOCAL = (None, "", "localhost", "0.0.0.0", "::", "::1", socket.gethostname())
def local(host):
    host = host.decode() if isinstance(host, bytes) else host
    return host in LOCAL or str(host).startswith("127.")
def refuse(what):
    with open(log, "a") as file:
        file.write(what + "\\n")
    raise OSError("no network in this test: " + what)
def trapped_look_up(host, *more, **named):
    return look_up(host, *more, **named) if local(host) else refuse(f"looks up {host}")
def trapped_connect(self, address):
    foreign = self.family != socket.AF_UNIX and self.type == socket.SOCK_STREAM and not local(address[0])
    return refuse(f"connects to {address}") if foreign else connect(self, address)
socket.getaddrinfo = trapped_look_up
socket.socket.connect = socket.socket.connect_ex = trapped_connect
"""


# Ray 2.60 asks the machine's own network who hosts it (UsageStatsHead.run), even where its reports are
# switched off; nothing is sent and nothing leaves the link. No setting of Ray's stops it.
RAY_ASKS_ITS_HOST = ("169.254.169.254", "metadata.google.internal")


@pytest.fixture
def trapped(tmp_path: Path) -> Callable[..., tuple[str, str]]:
    """Run a command without weights, home or network; what it said, and what it tried to reach."""
    (tmp_path / "trap").mkdir()
    (tmp_path / "trap/sitecustomize.py").write_text(TRAP)
    log = tmp_path / "network.log"

    def trapped_run(*arguments: str | Path, weights: Path | None = None) -> tuple[str, str]:
        home = tmp_path / "home"
        code, said = run(
            *arguments,
            PYTHONPATH=os.pathsep.join(
                [str(tmp_path / "trap"), *os.environ.get("PYTHONPATH", "").split(":")]
            ),
            NETWORK_LOG=str(log),
            HOME=str(home),
            XDG_CACHE_HOME=str(home),
            TORCH_HOME=str(home),
            SYNCDIFF_WEIGHTS=str(weights or home),
        )
        assert code >= 0 and "Traceback" not in said, said
        downloaded = [
            p.name for p in home.rglob("*") if p.suffix in (".pth", ".pt", ".model", ".onnx", ".tar")
        ]
        reached = log.read_text().splitlines() if log.exists() else []
        foreign = [line for line in reached if not any(host in line for host in RAY_ASKS_ITS_HOST)]
        return said, " ".join([*foreign, *downloaded])

    return trapped_run


def test_the_trap_catches(trapped: Callable[..., tuple[str, str]], tmp_path: Path) -> None:
    """Guards the tests below."""
    script = (
        "import contextlib, socket\nwith contextlib.suppress(OSError): socket.create_connection(('{}', 80))"
    )
    python = executable("python")
    for host in ("192.0.2.1", "weights.invalid"):
        _, reached = trapped(python, "-c", script.format(host))
        assert host in reached


@pytest.mark.parametrize("command", ["tracker", "metrics", "weights"])
def test_nothing_is_downloaded_unasked(
    row: Callable[[str, int], Row],
    trapped: Callable[..., tuple[str, str]],
    small_raw: Path,
    tmp_path: Path,
    command: str,
) -> None:
    """face-alignment's detector and network, lpips, pytorch-fid, syncnet-python: without their weights."""
    prep, evaluate = executable("syncdiff-prep"), executable("syncdiff-eval")
    pairs: Argv = [evaluate, small_raw, "--reference", small_raw, "--out", tmp_path / "eval"]
    commands: dict[str, list[Argv]] = {
        "tracker": [[prep, "folder", small_raw, "--out", tmp_path / "out", "--tracker", "face-alignment"]],
        "metrics": [
            [*pairs, "--metrics", "lse,lpips,fid,psnr"],
            [*pairs, "--metrics", "lse", "--lse", "syncnet-tracks"],
        ],
        "weights": [[prep, "weights", "list"], [prep, "folder", small_raw, "--dry-run"]],
    }
    line = row(f"downloads nothing unasked: {command}", 0)
    for argv in commands[command]:
        said, reached = trapped(*argv)
        line.count(reached)
        if command != "weights":
            assert "weights fetch" in said, said
    assert not line.lost


def test_nothing_is_downloaded_with_weights_at_hand(
    row: Callable[[str, int], Row], trapped: Callable[..., tuple[str, str]], small_raw: Path, tmp_path: Path
) -> None:
    """Random weights under the published names: constructors run in full, and still reach for nothing."""
    from syncnet_python.SyncNetModel import S
    from torchvision.models import alexnet

    weights, raw = tmp_path / "weights", tmp_path / "raw"
    weights.mkdir()
    raw.mkdir()
    torch.save(alexnet(weights=None).state_dict(), weights / "alexnet-owt-7be5be79.pth")
    torch.save(S(1024).state_dict(), weights / "syncnet_v2.model")
    shutil.copy(small_raw / "0.mp4", raw)
    said, reached = trapped(
        *(executable("syncdiff-eval"), raw, "--reference", raw, "--metrics", "lse,lpips"),
        *("--unverified-weights", "--workers", "1", "--out", tmp_path / "eval"),
        weights=weights,
    )
    line = row("downloads nothing unasked: weights at hand", 0)
    line.count(reached)
    assert "UNVERIFIED" in said, textwrap.shorten(said, 2000)
    assert not line.lost

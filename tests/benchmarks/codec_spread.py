"""How much of a figure is the codec? Each clip by several codecs of pictures and sound, scored, side by side.

    python tests/benchmarks/codec_spread.py CLIPS_DIR [--metrics lse,psnr,ssim] [--clips 8] [--protocol FILE]

Lossless copies (FFV1 and PCM) stand for what a method would write; each codec is one more method. For every
value it prints the mean by each codec, the spread over codecs, and the half width of the lossless clips' 95 %
bootstrap interval: where the spread is the larger, the codec decides before the method does. LSE needs
SyncNet's weights (`syncdiff-prep weights fetch syncnet`); with --unverified-weights figures by others mean
nothing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from syncdiff.evaluate.reencode import parse_codecs, reencode
from syncdiff.pipeline.media.probe import probe
from syncdiff.pipeline.records import ClipError

LOSSLESS = "ffv1+pcm"
CODECS = (
    LOSSLESS,
    "ffv1+aac:128k", "ffv1+aac:64k", "ffv1+mp3:128k", "ffv1+mp3:64k",
    "h264:crf18+pcm", "h264:crf23+pcm", "h264:crf28+pcm", "h265:crf23+pcm", "h265:crf28+pcm",
    "h264:crf23+aac:128k",
)  # fmt: skip
SUFFIXES = (".mp4", ".avi", ".mpg", ".mkv", ".mov")


def make_methods(clips: Path, most: int, folder: Path) -> None:
    """results/<codecs>/<clip> and references/<clip> (lossless), in `folder`."""
    taken = 0
    for path in sorted(p for p in clips.iterdir() if p.suffix in SUFFIXES):
        try:
            if not probe(path).has_audio or taken == most:
                continue
            whole = reencode(path, parse_codecs(LOSSLESS), folder / "made")
            for name in CODECS:
                copy = reencode(whole, parse_codecs(name), folder / "made")
                target = folder / "results" / name.replace(":", "-") / f"{path.stem}{copy.suffix}"
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(copy)
        except ClipError as error:
            print(f"{path.name}: {error}")
            continue
        (folder / "references").mkdir(exist_ok=True)
        (folder / "references" / f"{path.stem}.mkv").symlink_to(whole)
        taken += 1


def print_spread(metrics: dict[str, object], console: Console) -> None:
    """The tables of metrics.json turned: a row a codec, a column a value; then spread and interval."""
    columns: dict[str, dict[str, dict[str, float]]] = {}
    for block in metrics["results"]:  # type: ignore[attr-defined]
        for value, methods in block["values"].items():
            columns[value] = {method: cell["shared"] for method, cell in methods.items() if cell["shared"]}
    columns = {value: cells for value, cells in columns.items() if cells}
    table = Table("codec")
    for value in columns:
        table.add_column(value, justify="right")
    names = [name.replace(":", "-") for name in CODECS]
    for name in names:
        cells = (columns[value].get(name) for value in columns)
        table.add_row(name, *("–" if cell is None else f"{cell['mean']:.3f}" for cell in cells))
    table.add_section()
    spreads, intervals = [], []
    for cells in columns.values():
        means = [cell["mean"] for cell in cells.values()]
        spreads.append(f"{max(means) - min(means):.3f}")
        base = cells.get(names[0], {})
        wide = base.get("low") is not None and base.get("high") is not None
        intervals.append(f"±{(base['high'] - base['low']) / 2:.3f}" if wide else "–")
    table.add_row("spread over codecs", *spreads)
    table.add_row("95 % interval, lossless", *intervals)
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--metrics", default="lse,psnr,ssim,correlation")
    parser.add_argument("--protocol", default="reconstruction")
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--workers", default="2")
    parser.add_argument("--unverified-weights", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_methods(options.folder, options.clips, folder)
        evaluator = Path(sys.executable).with_name("syncdiff-eval")
        command = [str(evaluator), str(folder / "results"), "--sub-folders",
                   "--reference", str(folder / "references"), "--metrics", options.metrics, "--clips", "0",
                   "--workers", options.workers, "--protocol", options.protocol,
                   "--out", str(folder / "eval")]  # fmt: skip
        command += ["--unverified-weights"] if options.unverified_weights else []
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        print_spread(json.loads((folder / "eval" / "metrics.json").read_text("utf-8")), Console(width=140))
        if options.unverified_weights:
            print(
                "UNVERIFIED WEIGHTS were allowed: figures by weights that are not the published mean nothing."
            )


if __name__ == "__main__":
    main()

"""Fetches the projects whose loaders read our exports, and makes a Python that they run in.

    python get_originals.py FOLDER PYTHON3.10

Each is checked out at the commit that was tried. Nothing of them is part of this project.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

OWNERS = {
    "av_hubert": "facebookresearch",
    "VSP-LLM": "Sally-SH",
    "auto_avsr": "mpc001",
    "AVH-Align": "bit-ml",
    "TalkLip": "Sxjdwang",
    "LatentSync": "bytedance",
    "MuseTalk": "TMElyralab",
    "keysync": "antonibigata",
}
PACKAGES = (
    "pip<24.1 setuptools<70 wheel",  # fairseq 0.12.2 cannot be installed with newer ones
    "fairseq==0.12.2 torch==2.5.1 torchvision==0.20.1 torchaudio==2.5.1 numpy==1.23.5",
    "numpy==1.23.5 opencv-python-headless<4.11 kornia<0.8 transformers<4.50 diffusers==0.30.3 decord av",
    "numpy==1.23.5 librosa more_itertools einops audiomentations safetensors sentencepiece pandas matplotlib",
    "numpy==1.23.5 scikit-learn scikit-image python_speech_features soundfile ffmpeg-python",
)


def main(folder: Path, python: str, commits: dict[str, str]) -> None:
    for project, owner in OWNERS.items():
        checkout = folder / project
        if not checkout.is_dir():
            subprocess.run(["git", "init", "-q", str(checkout)], check=True)
            address = f"https://github.com/{owner}/{project}"
            fetch = ["git", "-C", str(checkout), "fetch", "-q", "--depth", "1", address, commits[project]]
            subprocess.run(fetch, check=True)
            subprocess.run(["git", "-C", str(checkout), "checkout", "-q", "FETCH_HEAD"], check=True)
    own_python = folder / "python" / "bin" / "python"
    if not own_python.is_file():
        subprocess.run([python, "-m", "venv", str(folder / "python")], check=True)
        for packages in PACKAGES:
            subprocess.run([str(own_python), "-m", "pip", "install", "-q", *packages.split()], check=True)


if __name__ == "__main__":
    import ast

    tests = Path(__file__).with_name("test_loaders.py").read_text()
    named = {
        node.targets[0].id: node.value  # type: ignore[attr-defined]
        for node in ast.parse(tests).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    main(Path(sys.argv[1]), sys.argv[2], ast.literal_eval(named["CHECKOUTS"]))

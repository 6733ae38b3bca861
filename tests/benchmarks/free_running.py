"""What the network loses by feeding on its own frames: free running, true pose frames and none, by model.

    python tests/benchmarks/free_running.py --data data/mine           (a prepared data set with moving heads)
    python tests/benchmarks/free_running.py --data data/mine --steps 1500 --seeds 3

Trains configs/train-tiny.yaml as it is and with the changes below, each with the same seeds, and generates
the first two seconds of every clip of the validation split, as a result is made and as training sees it.
Prints PSNR in dB inside the masks, over all frames and (in brackets) over the last half second, where a drift
has had time to grow. On a still head the three are alike, so the data set needs moving ones. Writes
free_running.json to --out.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from syncdiff.model.config import load_config
from syncdiff.model.data import trainable_rows
from syncdiff.model.generate import GenerationJob, Model, generate, load_model
from syncdiff.model.generate_split import row_job
from syncdiff.model.train import train
from syncdiff.model.training_log import FREE_FRAMES, first_frames, from_true_pose, psnr_in_mask, restarted
from syncdiff.pipeline.config import find_config
from syncdiff.pipeline.store.read import Dataset, open_dataset

CHANGES = {
    "as it is": [],
    "rollout 0.5": ["loader.rollout=0.5"],
    "rollout 0.5, noise 0.3": ["loader.rollout=0.5", "model.pose.noise=0.3"],
}
LAST = 13  # frames of half a second


def last_frames(job: GenerationJob) -> GenerationJob:
    """What is generated of the last half second."""
    return replace(job, order=job.order[-LAST:], generated=job.generated[-LAST:])


def measure(model: Model, dataset: Dataset, batch: int = 16) -> dict[str, list[float]]:
    """PSNR in dB inside the masks by pose frame: over all frames, and over the last half second."""
    clips = [dataset[row] for row in trainable_rows(dataset)]
    jobs = [first_frames(row_job(model, clip.clip_id, clip, clip), FREE_FRAMES) for clip in clips]
    alone = (replace(restarted(job), pose_from=np.full_like(job.pose_from, -1)) for job in jobs)
    runs = {
        "free running": list(generate(model, map(restarted, jobs), batch)),
        "true pose": [from_true_pose(model, job, batch) for job in jobs],
        "no pose": list(generate(model, alone, batch)),
    }
    return {
        name: [psnr_in_mask(done), psnr_in_mask(list(map(last_frames, done)))] for name, done in runs.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("build/free-running"))
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--config", type=Path, default=Path("train-tiny.yaml"))
    arguments = parser.parse_args()
    figures: dict[str, list[dict[str, list[float]]]] = {}
    for name, settings in CHANGES.items():
        for seed in range(arguments.seeds):
            common = [f"optim.steps={arguments.steps}", f"seed={seed}", "log.sample_every=0"]
            config = load_config(find_config(arguments.config), [*settings, *common])
            out = arguments.out / f"{name.replace(' ', '-').replace(',', '')}-{seed}"
            checkpoint = train(replace(config, data=str(arguments.data), out=str(out)), lambda text: None)
            dataset = open_dataset(arguments.data, config.loader.val_split)
            figures.setdefault(name, []).append(measure(load_model(checkpoint), dataset))
        (arguments.out / "free_running.json").write_text(json.dumps(figures, indent=1))
        mean = {kind: np.mean([seed[kind] for seed in figures[name]], axis=0) for kind in figures[name][0]}
        listed = ", ".join(f"{kind} {whole:.2f} ({last:.2f})" for kind, (whole, last) in mean.items())
        print(f"{name:24} {listed} dB", flush=True)


if __name__ == "__main__":
    main()

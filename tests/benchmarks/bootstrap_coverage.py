"""How often do "95 %" intervals hold the truth? Drawn over speakers and over clips, where speakers differ.

    python tests/benchmarks/bootstrap_coverage.py --speakers 40 --clips 30 --simulations 1000

Scores of a clip are its speaker's part plus its own, both normal; `--ratio` is the ratio of their standard
deviations. Of 40 speakers by 30 clips about 93 % by speaker is to be expected: the percentile interval of few
units is narrow.
"""

from __future__ import annotations

import argparse

import numpy as np

from syncdiff.evaluate.bootstrap import bootstrap_mean


def coverage(
    speakers: int, clips: int, simulations: int, ratio: float, resamples: int
) -> tuple[float, float]:
    """Shares of simulations whose interval holds the truth: by speaker, by clip."""
    rng = np.random.default_rng(0)
    groups = np.repeat([f"{k:05d}" for k in range(speakers)], clips)
    held = np.zeros(2)
    for _ in range(simulations):
        values = np.repeat(rng.normal(0, ratio, speakers), clips) + rng.normal(0, 1, speakers * clips)
        both = (bootstrap_mean(values, g, resamples=resamples) for g in (groups, None))
        held += [found.low < 0 < found.high for found in both]
    by_speaker, by_clip = held / simulations
    return float(by_speaker), float(by_clip)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--speakers", type=int, default=40)
    parser.add_argument("--clips", type=int, default=30, help="of each speaker")
    parser.add_argument("--simulations", type=int, default=1000)
    parser.add_argument(
        "--ratio", type=float, default=2.0, help="spread of speakers over spread of one's clips"
    )
    parser.add_argument("--resamples", type=int, default=2000)
    args = parser.parse_args()
    found = coverage(args.speakers, args.clips, args.simulations, args.ratio, args.resamples)
    error = np.sqrt(0.95 * 0.05 / args.simulations)
    print(f"by speaker {found[0]:.3f}, by clip {found[1]:.3f} (± {error:.3f})")


if __name__ == "__main__":
    main()

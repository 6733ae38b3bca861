"""An evaluation with known means, failures and missing clips, and a name made to break things."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

from rich.console import Console

from syncdiff.evaluate.metrics.base import Value
from syncdiff.evaluate.records import (
    Case,
    Evaluation,
    Failure,
    FormatMismatch,
    MetricInfo,
    NotComputed,
    Pooled,
    Score,
    Unmatched,
    WeightUse,
)
from syncdiff.evaluate.report.write import print_report

NASTY = "=cmd|'/C calc'!A0 \"><script>alert(1)</script>_$&%#{}~^\\`*[x](y)\n\u202e é\udcff"
METRICS = (
    MetricInfo(
        "lse",
        1,
        (
            Value("lse_d", "LSE-D", "lower"),
            Value("lse_c", "LSE-C", "higher"),
            Value("sync_offset", "offset", "zero", "frames", 2),
        ),
        True, False, True, ("syncnet",), {"protocol": "wav2lip-lrs", "fps": 25.0},
    ),
    MetricInfo("psnr", 1, (Value("psnr", "PSNR", "higher", "dB", 2),), True, True, False, (), {}),
    MetricInfo("psnr_mouth", 1, (Value("psnr_mouth", "PSNR mouth", "higher", "dB"),), True, True, False, (),
               {}),
    MetricInfo("fid", 1, (Value("fid", "FID", "lower"),), False, True, False, ("inception",),
               {"region": "face", "resize_px": 299}),
)  # fmt: skip


def synthetic(
    methods: tuple[str, ...] = ("ours", "blurred"), clips: int = 8, folder: Path = Path("/v")
) -> Evaluation:
    """Scores whose means are known; the second method fails on the last clip and lacks the one after it."""
    names = [f"spk/{k:03d}" for k in range(clips)]
    scores, failures, cases = [], [], []
    for m, method in enumerate(methods):
        for k, clip in enumerate(names):
            made = folder / method / f"{clip}.mp4"
            cases.append(Case(method, clip, made, folder / "reference" / f"{clip}.mp4", made))
            if m == 1 and k == clips - 1:
                failures.append(Failure(method, clip, "lse", "media", "no-sound", "the file holds no sound"))
                failures.append(Failure(method, clip, "psnr_mouth", "track", "no-face", "no face found"))
            else:
                lse = {
                    "lse_d": 6 + m + 0.1 * k,
                    "lse_c": 8 - m - 0.2 * k,
                    "sync_offset": float((-1) ** k * (k % 3)),
                }
                scores.append(Score(method, clip, "lse", lse))
                scores.append(Score(method, clip, "psnr_mouth", {"psnr_mouth": 30 - 2 * m - 0.1 * k}))
            scores.append(Score(method, clip, "psnr", {"psnr": 33 - m + 0.01 * k}))
    pooled = [
        Pooled(method, "fid", scope, tuple(names), {"fid": 4.5 + m})
        for m, method in enumerate(methods)
        for scope in ("shared", "own")
    ]
    return Evaluation(
        protocol={"name": "reconstruction", "lse": "wav2lip-lrs", "tracker": "dlib"},
        methods=methods,
        cases=tuple(cases),
        unmatched=(
            *(Unmatched("reference", m, "spk/999", "nothing was generated for it") for m in methods[1:2]),
            Unmatched("generated", methods[0], "odd", "there is no reference of this name"),
        ),
        metrics=METRICS,
        not_computed=(NotComputed("avs", "no-weights", "avhubert-base missing\nsyncdiff-prep weights"),),
        scores=tuple(scores),
        failures=tuple(failures),
        pooled=tuple(pooled),
        mismatches=(FormatMismatch(methods[0], names[0], 40, 50, True, (96, 96), (224, 224), 30.0, 25.0),),
        weights=(
            WeightUse("syncnet", "syncnet_v2.model", "0" * 64, False, ("lse",)),
            WeightUse("inception", "pt_inception.pth", "1" * 64, True, ("fid",)),
        ),
        versions={"syncdiff": "0.1.0"},
        settings={"results": "results"},
        notes=("A note for readers.",),
    )  # fmt: skip


def printed(evaluation: Evaluation, width: int = 80, **options: object) -> str:
    out = StringIO()
    print_report(Console(file=out, width=width), evaluation, **options)  # type: ignore[arg-type]
    return out.getvalue()

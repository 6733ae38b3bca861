"""Figures from papers, each with its source and protocol, to stand beside one's own where they may.

A figure that was read in the paper, or in a public record of its table, is marked `checked`; the others were
handed on to us and are printed with a note. There are no rows for HDTF, nor for VideoReTalking, DINet,
Diff2Lip, LatentSync, KeySync, and SyncDiff on LRS3: their tables could not be read (of SyncDiff on LRS3 the
abstract has only a relative gain, 62.3 % over earlier diffusion models), and figures that later papers give
for them are re-evaluations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from syncdiff.evaluate.records import Evaluation
from syncdiff.evaluate.report.tables import ReportTables, clips_text

# Values are named as in `syncdiff.evaluate.metrics.registry`.
_SAME_LSE = "wav2lip-lrs"


@dataclass(frozen=True)
class Published:
    """One row of a published table.

    protocol: which of ours it corresponds to, None where the source does not say. lse_protocol: how LSE was
    computed. checked: names of values that were read at the source. caveats: value name -> why it must not be
    put beside ours as it is. withheld: the same, of all values that may not stand beside an evaluation's;
    `comparable` fills it in.
    """

    method: str
    dataset: Literal["lrs2", "lrs3"]
    protocol: Literal["reconstruction", "unsynced"] | None
    source: str
    values: Mapping[str, float]
    lse_protocol: str = _SAME_LSE
    checked: tuple[str, ...] = ()
    note: str = ""
    caveats: Mapping[str, str] = field(default_factory=dict)
    withheld: Mapping[str, str] = field(default_factory=dict)

    def why_withheld(self, value: str, protocol: str, lse_protocol: str) -> str:
        """Why a value may not stand beside those of these protocols; empty where it may."""
        if self.protocol is None:
            return self.note
        if self.protocol != protocol:
            return f"its protocol is {self.protocol}, yours is {protocol}"
        if value.startswith("lse") and self.lse_protocol != lse_protocol:
            return f"its LSE is {self.lse_protocol}, yours is {lse_protocol}"
        return self.caveats.get(value, "")


_REGION = "the crop is not stated in the source, and this figure depends on it"
_PICTURE = dict.fromkeys(("psnr", "ssim", "fid", "lmd"), _REGION)
_TALKLIP = {"ssim": "TalkLip's crop (face box, 96x96): compare with ssim_talklip"}

ROWS: tuple[Published, ...] = (
    Published("ground truth", "lrs2", "reconstruction", "TalkLip (Wang et al. 2023), 1,243 test clips",
              {"lse_c": 8.248, "lse_d": 6.258}),
    Published("TalkLip", "lrs2", "reconstruction", "TalkLip (Wang et al. 2023)",
              {"lse_c": 8.53, "lse_d": 6.08, "ssim": 0.854}, caveats=_TALKLIP),
    Published("SyncDiff", "lrs2", None, "SyncDiff (WACV 2025)", {"lse_c": 7.80, "lse_d": 6.58},
              note="the paper does not state its protocol; the figures fit reconstruction"),
    Published("IP-LAP, re-evaluated", "lrs2", "reconstruction", "a later comparison, not Zhong et al. 2023",
              {"ssim": 0.87, "psnr": 29.67, "fid": 4.10, "lmd": 2.11},
              caveats=_PICTURE | {"ssim": "a re-evaluation, not that paper's; its crop is not stated"}),
    Published("Yaman 2024", "lrs2", "reconstruction", "Yaman et al. 2024",
              {"lse_c": 8.41, "lse_d": 6.03, "ssim": 0.952, "psnr": 32.64, "fid": 3.83, "lmd": 1.13},
              caveats=_PICTURE),
    Published("Wav2Lip", "lrs2", "unsynced", "Wav2Lip (Prajwal et al. 2020)",
              {"lse_c": 7.78, "lse_d": 6.386, "fid": 4.887}, checked=("lse_c", "lse_d", "fid"),
              caveats={"fid": _REGION}),
    Published("Wav2Lip + GAN", "lrs2", "unsynced", "Wav2Lip (Prajwal et al. 2020), on Papers with Code",
              {"lse_d": 6.469, "fid": 4.446}, checked=("lse_d", "fid"), caveats={"fid": _REGION}),
    Published("Wav2Lip, re-run by users", "lrs2", "unsynced", "Wav2Lip issue tracker",
              {"lse_c": 6.77, "lse_d": 7.15}),
    Published("Wav2Lip, re-run by users", "lrs3", "unsynced", "Wav2Lip issue tracker",
              {"lse_c": 7.15, "lse_d": 7.00}),
    Published("Wav2Lip + GAN, re-run by users", "lrs2", "unsynced", "Wav2Lip issue tracker",
              {"lse_c": 6.79, "lse_d": 7.21}),
    Published("Wav2Lip + GAN, re-run by users", "lrs3", "unsynced", "Wav2Lip issue tracker",
              {"lse_c": 7.07, "lse_d": 7.10}),
)  # fmt: skip


def comparable(dataset: str, protocol: str, lse_protocol: str) -> tuple[Published, ...]:
    """All published rows for a data set, with the reasons why values must be withheld.

    Raises ValueError for a data set without published rows here.
    """
    rows = [row for row in ROWS if row.dataset == dataset]
    if not rows:
        datasets = ", ".join(sorted({row.dataset for row in ROWS}))
        raise ValueError(f"no published figures for {dataset!r} here; there are some for {datasets}")
    reasons = [{name: row.why_withheld(name, protocol, lse_protocol) for name in row.values} for row in rows]
    return tuple(
        replace(row, withheld={name: reason for name, reason in names.items() if reason})
        for row, names in zip(rows, reasons, strict=True)
    )


_TITLES = {
    "lse_d": "LSE-D ↓",
    "lse_c": "LSE-C ↑",
    "psnr": "PSNR ↑",
    "ssim": "SSIM ↑",
    "fid": "FID ↓",
    "lmd": "LMD ↓",
}
WITHHELD = "withheld"


@dataclass(frozen=True)
class PublishedLine:
    """A method of one's own or a published one. cells: value name -> text; a value it lacks has no cell."""

    name: str
    source: str
    ours: bool
    cells: Mapping[str, str]


@dataclass(frozen=True)
class PublishedTable:
    """Lines under the same heads. notes: each withheld figure with its reason, and what else must be said."""

    dataset: str
    keys: tuple[str, ...]
    heads: Mapping[str, str]
    lines: tuple[PublishedLine, ...]
    notes: tuple[str, ...]


def published_table(
    evaluation: Evaluation, results: ReportTables, published: Sequence[Published]
) -> PublishedTable | None:
    """Own means over all clips of each method, and published rows; None where there are none."""
    if not published:
        return None
    keys = tuple(dict.fromkeys(key for row in published for key in row.values))
    columns = {column.key: column for column in results.columns}
    heads = {key: columns[key].head if key in columns else _TITLES.get(key, key) for key in keys}
    lines = []
    for method in evaluation.methods:
        own = {
            column.key: (column.text(figure.mean), figure.clips)
            for block in results.blocks
            for column in block.columns
            if column.key in keys and (figure := block.cells[method, column.key].own) is not None
        }
        counts = sorted({clips for _, clips in own.values()})
        over = f", {clips_text(counts[0])}" if len(counts) == 1 else ""
        over = f", {counts[0]}–{counts[-1]} clips" if len(counts) > 1 else over
        lines.append(
            PublishedLine(method, f"yours{over}", True, {key: text for key, (text, _) in own.items()})
        )
    for row in published:
        cells = {key: WITHHELD if key in row.withheld else f"{row.values[key]:g}" for key in row.values}
        lines.append(PublishedLine(row.method, row.source, False, cells))
    name, lse = evaluation.protocol.get("name"), evaluation.protocol.get("lse")
    notes = [
        f"Yours: protocol {name}, LSE {lse}, mean over all clips that each method has. Published figures are "
        "over the whole test set; yours can be compared with them only if your clips are that set."
    ]
    for row in published:
        for reason in dict.fromkeys(row.withheld.values()):
            titles = [heads[key].split(" ")[0] for key in row.withheld if row.withheld[key] == reason]
            notes.append(f"{row.method} ({row.source}): {', '.join(titles)} withheld: {reason}.")
    handed_on = [row.method for row in published if set(row.values) - set(row.checked)]
    if handed_on:
        notes.append(f"Not checked at the source itself: {'; '.join(dict.fromkeys(handed_on))}.")
    metrics = [metric.name for metric in evaluation.metrics if any(v.name in keys for v in metric.values)]
    unverified = sorted({name for metric in metrics for name in evaluation.unverified(metric)})
    if unverified:
        notes.append(f"UNVERIFIED WEIGHTS in your figures: {', '.join(unverified)}.")
    return PublishedTable(published[0].dataset, keys, heads, tuple(lines), tuple(notes))

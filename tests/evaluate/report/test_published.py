"""Published figures stand beside ours only where protocol and definition agree, and say why not elsewhere."""

from __future__ import annotations

import pytest

from syncdiff.evaluate.report.published import ROWS, WITHHELD, Published, comparable, published_table
from syncdiff.evaluate.report.tables import make_results

from .synthetic_evaluation import printed, synthetic


def shown(row: Published) -> dict[str, float]:
    return {name: value for name, value in row.values.items() if name not in row.withheld}


def test_only_matching_protocols_are_shown() -> None:
    by_method = {c.method: c for c in comparable("lrs2", "reconstruction", "wav2lip-lrs")}
    assert shown(by_method["ground truth"]) == {"lse_c": 8.248, "lse_d": 6.258}
    assert shown(by_method["Wav2Lip"]) == {}
    assert "unsynced" in by_method["Wav2Lip"].withheld["lse_c"]
    assert shown(by_method["SyncDiff"]) == {} and "does not state" in by_method["SyncDiff"].withheld["lse_d"]
    assert shown(by_method["Yaman 2024"]) == {"lse_c": 8.41, "lse_d": 6.03}
    assert "crop" in by_method["Yaman 2024"].withheld["fid"]


def test_another_way_to_compute_lse_is_never_mixed_in() -> None:
    for row in comparable("lrs2", "unsynced", "syncnet-tracks"):
        assert not any(name.startswith("lse") for name in shown(row))


def test_every_value_is_shown_or_explained() -> None:
    for dataset in ("lrs2", "lrs3"):
        for protocol in ("reconstruction", "unsynced", "cross"):
            for row in comparable(dataset, protocol, "wav2lip-lrs"):
                assert row.withheld.keys() <= row.values.keys()
                assert all(row.withheld.values())


def test_every_row_names_its_source() -> None:
    assert all(row.source for row in ROWS)
    with pytest.raises(ValueError, match="no published figures for 'hdtf'"):
        comparable("hdtf", "reconstruction", "wav2lip-lrs")


def test_published_rows_beside_yours_only_where_protocols_match() -> None:
    evaluation = synthetic()
    table = published_table(
        evaluation, make_results(evaluation), comparable("lrs2", "reconstruction", "wav2lip-lrs")
    )
    assert table is not None
    lines = {line.name: line for line in table.lines}
    assert lines["ours"].cells["lse_d"] == "6.350"
    assert lines["TalkLip"].cells["lse_d"] == "6.08"
    assert lines["Wav2Lip"].cells["lse_d"] == WITHHELD
    assert any("its protocol is unsynced, yours is reconstruction" in note for note in table.notes)
    assert any("UNVERIFIED" in note for note in table.notes)
    other = comparable("lrs2", "reconstruction", "syncnet-tracks")
    assert all("lse_d" not in shown(row) for row in other)
    assert "withheld" in printed(evaluation, published=other)


def test_what_was_not_read_at_its_source_is_said() -> None:
    rows = comparable("lrs2", "unsynced", "wav2lip-lrs")
    table = published_table(synthetic(), make_results(synthetic()), rows)
    (note,) = (note for note in table.notes if note.startswith("Not checked at the source"))
    assert "TalkLip" in note and "Wav2Lip, re-run by users" in note
    assert "Wav2Lip + GAN;" not in note
    assert all(set(row.checked) <= set(row.values) for row in ROWS)


def test_a_re_evaluation_is_not_that_papers_own_figure() -> None:
    (row,) = (row for row in comparable("lrs2", "reconstruction", "wav2lip-lrs") if "IP-LAP" in row.method)
    assert "re-evaluated" in row.method and "re-evaluation" in row.withheld["ssim"]

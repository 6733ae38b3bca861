from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from syncdiff.evaluate.metrics.base import Metric
from syncdiff.evaluate.metrics.registry import METRICS, Tools, choose_metrics
from syncdiff.evaluate.protocol import Protocol, load_protocol, protocol_names
from syncdiff.pipeline.avhubert.untrained import make_tiny_lip_reader
from syncdiff.pipeline.weights.published import WeightFile, entry_named


def test_names_and_columns_are_unique():
    assert [entry.metric.name for entry in METRICS.values()] == list(METRICS)
    columns = Counter(value.name for entry in METRICS.values() for value in entry.metric.values)
    assert max(columns.values()) == 1


@pytest.mark.parametrize("name", METRICS)
def test_weights_are_known_to_the_registry_of_weights(name: str):
    for protocol in (Protocol(), Protocol(lse="syncnet-tracks", avhubert="avhubert-large")):
        for weights in METRICS[name].weights(protocol):
            assert entry_named(weights).urls


@pytest.mark.parametrize("name", [name for name, entry in METRICS.items() if not entry.weights(Protocol())])
def test_metrics_without_weights_are_made_from_nothing(name: str):
    metric = METRICS[name].make(Tools("cpu", {}), Protocol())
    assert isinstance(metric, METRICS[name].metric)
    assert isinstance(metric, Metric)


@pytest.mark.parametrize("protocol", protocol_names())
def test_protocols_name_metrics_that_exist(protocol: str):
    loaded = load_protocol(protocol)
    assert {*loaded.metrics, *loaded.on_request} <= set(METRICS)
    assert not set(loaded.metrics) & set(loaded.on_request)


def test_every_metric_is_in_a_protocol():
    protocols = [load_protocol(name) for name in protocol_names()]
    named = {metric for protocol in protocols for metric in (*protocol.metrics, *protocol.on_request)}
    assert named == set(METRICS)


def test_a_lip_reader_is_a_file_or_a_name(tmp_path: Path):
    path = make_tiny_lip_reader(tmp_path / "tiny.safetensors")
    protocol = load_protocol("reconstruction", lip_reader=str(path))
    chosen = choose_metrics(protocol, ["lipscore", "wer"])
    assert (chosen.metrics, chosen.weights, chosen.not_computed) == (("wer", "lipscore"), (), ())
    settings = METRICS["wer"].make(Tools("cpu", {}), protocol).settings()
    assert (settings["lip_reader"], settings["untrained"], settings["beam"]) == (path.name, True, 50)
    named = Protocol(lip_reader="avhubert-large-vsr")
    assert METRICS["wer"].weights(named) == ("avhubert-large-vsr",)
    file = WeightFile(entry_named("avhubert-large-vsr"), path, "", False)
    by_name = METRICS["lipscore"].make(Tools("cpu", {"avhubert-large-vsr": file}), named)
    assert by_name.settings()["lip_reader"] == path.name
    elsewhere = load_protocol("reconstruction", lip_reader="nowhere.pt")
    (refused,) = choose_metrics(elsewhere, ["wer"]).not_computed
    assert refused.reason == "no-weights"
    assert "nowhere.pt is neither a file nor the name of weights" in refused.detail

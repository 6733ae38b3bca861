from __future__ import annotations

from collections import Counter

import pytest

from syncdiff.evaluate.metrics.base import Metric
from syncdiff.evaluate.metrics.registry import METRICS, Tools
from syncdiff.evaluate.protocol import Protocol, load_protocol, protocol_names
from syncdiff.pipeline.weights.published import entry_named


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

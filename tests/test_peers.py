"""What users would pick in place of this package: each recipe makes a model that answers as its library's would."""

from __future__ import annotations

from dataclasses import replace
from statistics import median

import numpy as np
import pytest
from doubles import FEW, Silent
from libraries import needs

from optimize import peers
from optimize.building import Loaded, load, open_folder
from optimize.evaluate.judge import pad_id_of
from optimize.evaluate.predict import collate
from optimize.machine import environment
from optimize.measure.workers import opener
from optimize.planning import Options, make_plan

HEAD = "text-classification"


@pytest.fixture(scope="module")
def loaded(checkpoint, data_folder, tmp_path_factory) -> Loaded:
    place = tmp_path_factory.mktemp("peers")
    options = Options(
        model=str(checkpoint(HEAD)), data=str(data_folder(HEAD)), out=place / "runs", cache=place / "cache", **FEW
    )
    return load(make_plan(replace(options, calibration_examples=16)), Silent())


@needs("openvino", "nncf")
def test_every_peer_answers_nearly_as_fp32_does(loaded, monkeypatch):
    monkeypatch.setattr(environment, "cpu_features", lambda: ("avx512_bf16",))
    found, left_out = peers.build_peers(loaded)

    assert [each.name for each in found] == [*peers.IN_PYTORCH, *peers.PEERS]
    assert left_out == {}
    folder, head = loaded.origin.artifact.path, loaded.plan.head
    feed = collate(loaded.calibration.features[:8], pad_id=pad_id_of(folder))
    (name,) = head.outputs
    expected = open_folder("torch", folder, head=head, threads=1)(feed)[name]
    for each in found:
        answers = opener(each.target)(each.artifact.path, 1, head, each.runtime)(feed)[name]
        assert answers.dtype == np.float32
        off = median(np.abs(answers - expected).ravel())
        assert 0 < off < 0.25 * float(np.abs(expected).max()), each.name


def test_what_cannot_be_built_or_run_here_is_left_out_with_the_reason(loaded, monkeypatch):
    monkeypatch.setattr(environment, "cpu_features", lambda: ("avx2",))
    monkeypatch.setattr(environment, "version", lambda name: "absent" if name == "nncf" else "1")
    found, left_out = peers.build_peers(loaded)

    assert [each.name for each in found] == ["pytorch-int8", "onnxruntime-dynamic"]
    assert left_out == {"pytorch-bf16": "the CPU does not compute in BF16", "nncf-int8": "nncf is not installed"}

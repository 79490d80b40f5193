"""Scorers and calibrations: predictions in order, and files that do not fit cost a message."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from math import isfinite
from pathlib import Path

import numpy as np
import pytest

from perfkit import config
from perfkit.analysis.dependences import Analysis
from perfkit.cost import calibration
from perfkit.cost.device import Device
from perfkit.cost.model import Model, save
from perfkit.cost.scorer import UNKNOWN, AnalyticScorer, LearnedScorer, scorer_of, shipped
from perfkit.errors import WeightsError
from perfkit.runtime.machine import Cache, Machine
from perfkit.schedule import script
from perfkit.schedule.seeds import candidates
from perfkit.schedule.state import State
from tests.cost.test_model import BOOSTED, tokens
from tests.programs_ir import MATMUL, parse_scop

CACHES = (Cache(1, 32 << 10, 64, 1), Cache(2, 1 << 20, 64, 1), Cache(3, 32 << 20, 64, 4))
MACHINE = Machine("x86_64", "made up", 2, 2, CACHES, 32, ("avx2",), 4096)
DEVICE = Device.of(MACHINE)
MODEL = Model((BOOSTED,), {"data": "0", "device": "cpu"})


def states() -> tuple[Analysis, list[State]]:
    analysis = Analysis(parallel_reductions=True)
    found = candidates(State.start(parse_scop(MATMUL)), 32, analysis)
    return analysis, [s.state for s in found]


@pytest.mark.parametrize("model", [None, MODEL])
def test_every_state_gets_a_score(model: Model | None) -> None:
    analysis, found = states()
    scop = found[0].original
    sizes = dict.fromkeys(scop.parameters, 300)
    scorer = scorer_of(scop, analysis, sizes, DEVICE, model)
    assert isinstance(scorer, AnalyticScorer if model is None else LearnedScorer)
    scores = scorer.score(found)
    assert len(scores) == len(found)
    assert all(isfinite(s.seconds) and s.seconds > 0 and s.spread >= 0 for s in scores)
    assert scorer.score([]) == []
    assert [scorer.score([s])[0].seconds for s in found] == pytest.approx(
        [s.seconds for s in scores]
    )


def test_the_weights_that_ship_know_a_good_product_from_a_bad_one() -> None:
    model = shipped()
    assert model is not None and model.meta["programs"] > 500
    analysis = Analysis(parallel_reductions=True)
    start = State.start(parse_scop(MATMUL))
    apart = "Distribute(j)\nDistribute(i)\nInterchange(j_2, k)\n"
    scripts = (
        apart + "Parallelize(i)\nParallelize(i_2)\nVectorize(j_2, 8)", "",
        apart + "Interchange(i_2, k)\nInterchange(i_2, j_2)",
    )  # fmt: skip
    found = [script.replay(start, text, analysis) for text in scripts]
    sizes = dict.fromkeys(start.scop.parameters, 700)
    good, plain, bad = scorer_of(start.scop, analysis, sizes, DEVICE, model).score(found)
    assert 3 * good.seconds < plain.seconds < bad.seconds
    assert 0.1 < good.spread < 1


def test_what_isl_cannot_bound_is_scored_last() -> None:
    scop = parse_scop(MATMUL)
    sizes = dict.fromkeys(scop.parameters, 300)
    scorer = scorer_of(scop, Analysis(max_operations=1), sizes, DEVICE, MODEL)
    assert scorer.score([State.start(scop)]) == [UNKNOWN]


def test_weights_that_do_not_fit_leave_the_analytic_model(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert shipped(tmp_path / "none") is None
    path = tmp_path / "w.safetensors"
    save(path, [BOOSTED], {"data": "0", "device": "cpu"})
    assert shipped(path) is not None
    path.write_bytes(path.read_bytes()[:40])
    with caplog.at_level(logging.WARNING):
        assert shipped(path) is None
    assert "the analytic model is used" in caplog.text


# -- calibration -----------------------------------------------------------------------------


def test_a_slower_machine_is_learned_from_its_measurements() -> None:
    many = [tokens(2 + k % 5, k) for k in range(40)]
    plain = MODEL.predict(many).seconds(many)
    found = calibration.fit(MODEL, many, 3.0 * plain, "here")
    assert found.machine == "here" and found.schedules == 40
    assert found.after < 0.01 < found.before
    assert found.applied(MODEL).predict(many).seconds(many) == pytest.approx(3 * plain, rel=0.05)


def test_what_depends_on_a_feature_is_corrected_by_it() -> None:
    many = [tokens(3, k) for k in range(200)]
    rows = np.stack([t.rows["program"][0] for t in many])
    seconds = MODEL.predict(many).seconds(many) * np.exp(0.5 * rows[:, 3])
    found = calibration.fit(MODEL, many, seconds, "here")
    assert found.after < 0.4 * found.before
    assert np.argmax(np.abs(found.linear)) == 3


def test_too_few_measurements_are_refused() -> None:
    with pytest.raises(WeightsError, match="too few"):
        calibration.fit(MODEL, [tokens(2)], np.ones(1), "here")


def test_a_calibration_is_for_its_machine_and_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = replace(config.current(), cache_dir=tmp_path)
    monkeypatch.setattr(calibration, "shipped", lambda: MODEL)
    many = [tokens(2 + k % 5, k) for k in range(40)]
    found = calibration.fit(MODEL, many, np.ones(40), MACHINE.key())
    path = calibration.save(found, settings)
    calibrated = calibration.shipped_for(MACHINE, settings)
    assert calibrated is not None and calibrated.bias == found.bias
    assert calibrated.name != MODEL.name
    assert calibration.shipped_for(replace(MACHINE, cpu="another"), settings) is MODEL
    plain = json.loads(path.read_text())
    path.write_text(json.dumps({**plain, "weights": "others"}))
    assert calibration.shipped_for(MACHINE, settings) is MODEL
    for bad in ("{", json.dumps({**plain, "format": 9}), json.dumps({**plain, "linear": [1]})):
        path.write_text(bad)
        with caplog.at_level(logging.WARNING):
            assert calibration.shipped_for(MACHINE, settings) is MODEL
        assert "perfkit calibrate" in caplog.text
        caplog.clear()

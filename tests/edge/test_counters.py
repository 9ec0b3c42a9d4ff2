"""How long answers took: a ring of the last of them, and quantiles on demand."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from leakdet_tf.core.errors import BundleError
from leakdet_tf.edge import Predictor
from leakdet_tf.edge.backends.litert import LiteRTBackend
from leakdet_tf.edge.counters import Counters, Latency, Stats


def test_before_the_first_answer_there_are_no_times() -> None:
    assert Counters().stats() == Stats(0, 0)


def test_quantiles_are_those_of_numpy() -> None:
    counters, random = Counters(), np.random.default_rng(0)
    invoke, outside = random.uniform(5, 50, 321), random.uniform(1, 4, 321)
    for one, more in zip(invoke, outside, strict=True):
        counters.add(one, one + more)
    stats = counters.stats()
    assert (stats.count, stats.window) == (321, 321)
    for found, times in ((stats.invoke, invoke), (stats.total, invoke + outside), (stats.outside, outside)):
        assert found is not None
        wanted = np.percentile(times, [50, 95, 100])
        np.testing.assert_allclose([found.p50_ms, found.p95_ms, found.max_ms], wanted, rtol=1e-12, atol=1e-9)


def test_only_the_last_answers_are_remembered() -> None:
    counters = Counters(kept=10)
    for number in range(25):
        counters.add(number, 100 + number)
    stats = counters.stats()
    assert (stats.count, stats.window) == (25, 10)
    assert stats.invoke == Latency(19.5, pytest.approx(23.55), 24.0)
    assert stats.outside == Latency(100.0, 100.0, 100.0)


def test_reset_forgets_what_was() -> None:
    counters = Counters(kept=4)
    for _ in range(6):
        counters.add(1000.0, 2000.0)
    counters.reset()
    assert counters.stats() == Stats(0, 0)
    counters.add(1.0, 3.0)
    assert counters.stats() == Stats(1, 1, Latency(1, 1, 1), Latency(3, 3, 3), Latency(2, 2, 2))


def test_threads_lose_no_answer() -> None:
    counters = Counters(kept=50)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: counters.add(number, number), range(4000)))
    assert counters.stats().count == 4000


def test_a_predictor_counts_its_answers_alone(small_bundle: Path) -> None:
    predictor = Predictor(small_bundle, warm_up=5)
    assert predictor.stats() == Stats(0, 0), "golden frames and warm-up are no answers"
    frame = np.zeros((48, 64, 3), np.uint8)
    answers = [predictor.predict(frame) for _ in range(3)]
    stats = predictor.stats()
    assert stats.count == 3
    assert stats.invoke is not None
    assert stats.total is not None
    assert stats.invoke.max_ms == max(answer.invoke_ms for answer in answers)
    assert stats.total.p50_ms == sorted(answer.total_ms for answer in answers)[1]
    assert json.loads(json.dumps(stats.to_dict()))["count"] == 3
    predictor.reset_stats()
    assert predictor.stats().count == 0


@pytest.mark.parametrize(("warm_up", "runs"), [(0, 2), (1, 2), (2, 2), (7, 7)])
def test_warm_up_runs_count_the_golden_frames(
    small_bundle: Path, warm_up: int, runs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran, run = [], LiteRTBackend.run
    monkeypatch.setattr(LiteRTBackend, "run", lambda self, inputs: (ran.append(1), run(self, inputs))[1])
    Predictor(small_bundle, warm_up=warm_up)
    assert len(ran) == runs


def test_warm_up_cannot_be_negative(small_bundle: Path) -> None:
    with pytest.raises(BundleError, match="warm_up must be at least 0, not -1"):
        Predictor(small_bundle, warm_up=-1)


def test_each_of_many_threads_gets_its_own_frame_s_answer(small_bundle: Path) -> None:
    predictor, random = Predictor(small_bundle), np.random.default_rng(1)
    frames = [random.integers(0, 256, (40, 60, 3), dtype=np.uint8) for _ in range(16)]
    wanted = [predictor.predict(frame).scores for frame in frames]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(predictor.predict, frames * 20))
    for number, answer in enumerate(answers):
        np.testing.assert_array_equal(answer.scores, wanted[number % 16])
    assert predictor.stats().count == 16 + 320

"""Comparisons: p-values counted by hand, tests that err as often as they say, and files that are refused."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from leakdet_tf.analysis.comparison import conclusions, draw, lines, markdown
from leakdet_tf.analysis.figures import save
from leakdet_tf.analysis.segment.boundary import boundary_ratios
from leakdet_tf.analysis.segment.compare import Run, check_metric, compare, paired_p
from leakdet_tf.analysis.segment.counts import PerPicture, load_counts, save_counts
from leakdet_tf.analysis.stats.significance import holm
from leakdet_tf.analysis.tables import text_table
from leakdet_tf.core.confusion_matrix import ratios
from leakdet_tf.core.errors import ConfigError, DataError
from leakdet_tf.core.labels import Labelling

ABOUT = {"data": "data/gas", "split": "test", "ids_sha256": "0", "weights_sha256": "1"}


def table(right: np.ndarray, size: int = 100, labelling: Labelling | None = None) -> PerPicture:
    """Pictures of ``size`` pixels a class, of which ``right`` (N, 2) are decided rightly; some are of either class."""
    number, labelling = len(right), labelling or Labelling(2)
    counts = np.zeros((number, labelling.count, 2), np.int64)
    for index in range(2):
        counts[:, index, index] = right[:, index]
        counts[:, index, 1 - index] = size - right[:, index]
    edges = np.full((number, 2, 4), 50, np.int64)
    edges[..., 0] = edges[..., 2] = right * 50 // size
    return PerPicture(
        tuple(f"p{i:03d}" for i in range(number)), counts, edges, labelling.members, ("background", "gas")
    )


def run(name: str, right: np.ndarray, **settings: Any) -> Run:
    return Run(name, Path("runs") / name, ABOUT, table(right), settings)


def noisy(seed: int, number: int, better: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Two runs that share the pictures' difficulty; the second is ``better`` by that share of pixels."""
    random = np.random.default_rng(seed)
    hard = random.beta(6, 3, (number, 1))
    both = [np.clip(hard + shift + random.normal(0, 0.05, (number, 2)), 0, 1) for shift in (0, better)]
    return (both[0] * 100).astype(int), (both[1] * 100).astype(int)


def enumerated(one: PerPicture, two: PerPicture, metric: str) -> float:
    """p by trying every swap in plain Python."""

    def figure(counts: np.ndarray, edges: np.ndarray) -> float:
        if metric == "mean_boundary_f1":
            return float(boundary_ratios(edges)[metric])
        found = ratios(counts, one.members)
        return float(found["iou"][1] if metric == "iou:gas" else found[metric])

    def difference(swap: tuple[bool, ...]) -> float:
        sides = [[(b if s else a), (a if s else b)] for s, (a, b) in zip(swap, pictures, strict=True)]
        values = [figure(sum(side[k][0] for side in sides), sum(side[k][1] for side in sides)) for k in (0, 1)]
        return abs(values[0] - values[1])

    pictures = [((a, b), (c, d)) for a, b, c, d in zip(one.counts, one.boundary, two.counts, two.boundary, strict=True)]
    found = [difference(swap) for swap in itertools.product((False, True), repeat=len(pictures))]
    return sum(value >= found[0] - 1e-12 for value in found) / len(found)


@pytest.mark.parametrize("metric", ["mean_iou", "mean_dice", "pixel_accuracy", "mean_boundary_f1", "iou:gas"])
@pytest.mark.parametrize("number", [1, 2, 5, 8])
def test_few_pictures_are_enumerated_exactly(metric: str, number: int) -> None:
    first, second = noisy(number, number, 0.05)
    one, two = table(first), table(second)
    p, tried = paired_p(one, two, metric)
    assert p == pytest.approx(enumerated(one, two, metric), abs=1e-12)
    assert tried == 2 ** int((first != second).any(1).sum())


def test_a_p_worked_by_hand() -> None:
    """Three pictures, each better by the same: only no swap and all swaps are as extreme: 2 of 8."""
    first = np.full((3, 2), 50)
    assert paired_p(table(first), table(first + 10), "pixel_accuracy") == (0.25, 8)


def test_random_swaps_come_near_the_exact_p(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = noisy(3, 12, 0.02)
    exact, tried = paired_p(table(first), table(second), "mean_iou")
    assert tried == 4096
    monkeypatch.setattr("leakdet_tf.analysis.segment.compare.EXACT", 0)
    drawn, tried = paired_p(table(first), table(second), "mean_iou")
    assert tried == 10_000
    assert exact is not None
    assert drawn == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 10_000) + 2e-4)


def test_pictures_alike_in_both_change_nothing() -> None:
    first, second = noisy(4, 10, 0.05)
    same = np.full((40, 2), 70)
    wide = table(np.concatenate([first, same])), table(np.concatenate([second, same]))
    assert paired_p(*wide, "pixel_accuracy") == paired_p(table(first), table(second), "pixel_accuracy")


def test_no_difference_is_claimed_too_often() -> None:
    """Under the null p is at most 5 % about 5 times in 100: 400 sets, so 1.8 % to 8.4 % are within three deviations."""
    claimed = 0
    for seed in range(400):
        first, second = noisy(1000 + seed, 25)
        p, _ = paired_p(table(first), table(second), "mean_iou", seed=seed, permutations=400)
        claimed += p is not None and p <= 0.05
    assert 0.018 <= claimed / 400 <= 0.084


def test_a_planted_difference_is_found() -> None:
    found = 0
    for seed in range(40):
        first, second = noisy(seed, 40, 0.04)
        p, _ = paired_p(table(first), table(second), "mean_iou", seed=seed, permutations=500)
        found += p is not None and p <= 0.05
    assert found >= 36


def test_a_run_against_itself() -> None:
    right = noisy(0, 20)[0]
    (pair,) = compare([run("a", right), run("b", right)], "mean_iou", resamples=200)["pairs"]
    assert (pair["value"], pair["low"], pair["high"], pair["p"], pair["holds"]) == (0, 0, 0, 1, False)


def test_a_paired_interval_is_narrower_than_the_runs_own() -> None:
    first, second = noisy(5, 60, 0.03)
    found = compare([run("a", first), run("b", second)], "mean_iou")
    own, (pair,) = found["runs"][0]["metrics"]["mean_iou"], found["pairs"]
    assert own["low"] < own["value"] < own["high"]
    assert pair["low"] < pair["value"] < pair["high"] < 0
    assert pair["high"] - pair["low"] < 0.5 * (own["high"] - own["low"])
    assert pair["holds"]
    assert "b is better than a" in conclusions(found)[0]
    assert "after Holm" not in conclusions(found)[0]


def test_figures_are_those_of_the_report_and_the_same_every_time() -> None:
    right = noisy(6, 30)[0]
    one, two = (compare([run("a", right)], "mean_iou", resamples=300) for _ in "ab")
    assert one == two
    metrics, counts = one["runs"][0]["metrics"], table(right).counts.sum(0)
    assert metrics["mean_dice"]["value"] == ratios(counts)["mean_dice"]
    assert metrics["iou"]["gas"]["value"] == ratios(counts)["iou"][1]
    assert metrics["mean_boundary_f1"]["value"] == boundary_ratios(table(right).boundary.sum(0))["mean_boundary_f1"]


def test_sets_of_labels_are_taken_as_the_report_takes_them() -> None:
    labelling = Labelling(3, ((0, 2),))
    random = np.random.default_rng(0)
    counts, edges = random.integers(1, 99, (9, 4, 3)), np.full((9, 3, 4), 7)
    measured = PerPicture(tuple("abcdefghi"), counts, edges, labelling.members, ("x", "y", "z"))
    found = compare([Run("a", Path("a"), ABOUT, measured, {})], "mean_iou", resamples=100)
    expected = ratios(counts.sum(0), labelling.members)
    assert found["runs"][0]["metrics"]["mean_iou"]["value"] == expected["mean_iou"]
    assert found["runs"][0]["metrics"]["iou"]["z"]["value"] == expected["iou"][2]


def test_an_absent_class_has_no_test() -> None:
    counts, edges = np.zeros((14, 2, 2), np.int64), np.zeros((14, 2, 4), np.int64)
    counts[:, 0, 0] = 10
    empty = PerPicture(tuple(map(str, range(14))), counts, edges, Labelling(2).members, ("background", "gas"))
    runs = [Run(name, Path(name), ABOUT, empty, {}) for name in "ab"]
    found = compare(runs, "iou:gas", resamples=100)
    assert found["pairs"][0]["p"] is None
    assert found["runs"][0]["metrics"]["iou"]["gas"] == {"value": None, "low": None, "high": None}
    assert found["runs"][0]["metrics"]["mean_boundary_f1"]["value"] is None
    assert "undefined" in conclusions(found)[0]
    json.dumps(found, allow_nan=False)
    draw(found)
    assert "absent" in markdown(found)


def test_holm_as_worked_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, None, 0.9]) == [1.0, None, 1.0]
    assert holm([]) == []
    assert holm([0.02]) == [0.02]


def test_only_settings_that_differ_are_shown() -> None:
    right = noisy(0, 20)[0]
    runs = [run("a", right, lr=0.1, act="relu"), run("b", right, lr=0.1, act="gelu", extra=True)]
    found = compare(runs, "mean_iou", resamples=100)
    assert [one["settings"] for one in found["runs"]] == [
        {"act": "relu", "extra": None},
        {"act": "gelu", "extra": True},
    ]
    text, page = "\n".join(lines(found)), markdown(found)
    for shown in (text, page):
        assert "gelu" in shown
        assert "lr" not in shown.split()
        assert "does not hold at 5%" in shown


def test_what_has_no_experiment_does_not_make_every_setting_differ() -> None:
    right = noisy(0, 20)[0]
    runs = [run("a", right, kind="keras", lr=0.1, act="relu"), run("trees", right, kind="boosted trees")]
    found = compare(runs, "mean_iou", resamples=100)
    assert [one["settings"] for one in found["runs"]] == [{"kind": "keras"}, {"kind": "boosted trees"}]


def test_the_comparison_is_drawn(tmp_path: Path) -> None:
    rights = [noisy(seed, 30, 0.02 * seed)[1] for seed in range(4)]
    found = compare(
        [run(f"r{i}", right) for i, right in enumerate(rights)], "mean_iou", resamples=200, permutations=200
    )
    assert len(found["pairs"]) == 6
    assert all(pair["p_holm"] >= pair["p"] for pair in found["pairs"])
    save(draw(found), tmp_path / "comparison.png")
    with Image.open(tmp_path / "comparison.png") as picture:
        assert min(picture.size) > 200


RIGHT = noisy(0, 5)[0]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (Run("b", Path("runs/b"), ABOUT | {"split": "val"}, table(RIGHT), {}), r"another split \(test and val\)"),
        (Run("b", Path("runs/b"), ABOUT | {"data": "x"}, table(RIGHT), {}), "other data"),
        (Run("b", Path("runs/b"), ABOUT | {"ids_sha256": "9"}, table(RIGHT), {}), "on other pictures"),
        (Run("b", Path("runs/b"), ABOUT, table(RIGHT[:4]), {}), r"on other pictures \(5 and 4\)"),
        (Run("b", Path("runs/b"), ABOUT, table(RIGHT, 101), {}), "mask of picture 'p000' was another"),
    ],
)
def test_what_was_measured_otherwise_is_refused(other: Run, said: str) -> None:
    with pytest.raises(DataError, match=rf"runs/a and runs/b: .*{said}.*; evaluate both") as caught:
        compare([run("a", RIGHT), other], "mean_iou")
    assert len(str(caught.value).splitlines()) == 1


def test_other_classes_are_refused() -> None:
    one = table(RIGHT)
    other = PerPicture(one.ids, one.counts, one.boundary, one.members, ("background", "smoke"))
    with pytest.raises(DataError, match="other classes"):
        compare([run("a", RIGHT), Run("b", Path("b"), ABOUT, other, {})], "mean_iou")


def test_an_unknown_metric_is_refused() -> None:
    with pytest.raises(ConfigError, match="--metric mean_iuo: unknown; did you mean 'mean_iou'"):
        check_metric("mean_iuo", ("background", "gas"))
    with pytest.raises(ConfigError, match="iou:smoke"):
        check_metric("iou:smoke", ("background", "gas"))


def test_counts_come_back_as_they_were_written(tmp_path: Path) -> None:
    one = table(RIGHT)
    save_counts(tmp_path / "counts.npz", one)
    two = load_counts(tmp_path / "counts.npz")
    assert (two.ids, two.classes) == (one.ids, one.classes)
    for name in ("counts", "boundary", "members"):
        np.testing.assert_array_equal(getattr(two, name), getattr(one, name))
    assert [path.name for path in tmp_path.iterdir()] == ["counts.npz"]


def test_damaged_counts_are_one_line_with_a_remedy(tmp_path: Path) -> None:
    path = tmp_path / "counts.npz"
    with pytest.raises(DataError, match="missing; run evaluate again"):
        load_counts(path)
    save_counts(path, table(RIGHT))
    whole, random = path.read_bytes(), np.random.default_rng(0)
    spoiled = [b"", b"PK", b"text", whole[: len(whole) // 2], np.zeros(3).tobytes()]
    for _ in range(150):
        data = bytearray(whole)
        for place in random.integers(0, len(whole), 4):
            data[place] ^= int(random.integers(1, 256))
        spoiled.append(bytes(data))
    refused = 0
    for data in spoiled:
        path.write_bytes(data)
        try:
            assert load_counts(path).ids == table(RIGHT).ids  # a flipped byte may hit what nobody reads
        except DataError as error:
            refused += 1
            assert len(str(error).splitlines()) == 1
            assert "run evaluate again" in str(error)
    assert refused > 100


def test_arrays_that_are_no_counts_are_refused(tmp_path: Path) -> None:
    one = table(RIGHT)
    good = {name: getattr(one, name) for name in ("ids", "counts", "boundary", "members", "classes")}
    wrong: dict[str, Any] = {
        "float": {"counts": one.counts.astype(float)},
        "shape": {"boundary": one.boundary[:, :1]},
        "negative": {"counts": -one.counts},
        "matched": {"boundary": one.boundary[..., ::-1]},
        "twice": {"ids": np.array(["a"] * 5)},
        "bytes": {"ids": np.arange(5)},
        "members": {"members": ~one.members},
        "pickle": {"ids": np.array([{}] * 5, dtype=object)},
    }
    path = tmp_path / "counts.npz"
    for change in wrong.values():
        np.savez(path, **(good | change))
        with pytest.raises(DataError, match="run evaluate again"):
            load_counts(path)
    np.savez(path, **{name: value for name, value in good.items() if name != "boundary"})
    with pytest.raises(DataError, match="boundary"):
        load_counts(path)
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(DataError):
        load_counts(tmp_path / "one.npy")
    with pytest.raises(DataError, match="cannot be read"):
        load_counts(tmp_path)


def test_tables_keep_their_columns() -> None:
    assert text_table(["a", "bb"], [["ccc", "d\ne"]]) == ["a    bb", "ccc  d", "     e"]

"""Is a network worth its while? Boosted trees on single pixels of a rendered folder, measured as any model is.

    python benchmarks/gas_baseline.py data/gas [--test data/frozen] [--out runs/gas_baseline] [--balanced]

Each pixel is told by its value, Gaussian blurs and local standard deviations at three scales, gradient, Laplacian and
place: 13 features of a grey picture, 15 of a colour one. Trained is scikit-learn's HistGradientBoostingClassifier on
pixels of FOLDER/train, as many of each class, weighted back to the classes' natural shares (unless --balanced). Then
FOLDER/test (or that of --test) is answered and counted by the code that reports on networks. With --out, metrics.json
and counts.npz are written there, and ``leakdet-tf compare RUN OUT`` tests a network against the trees picture by
picture, when it was evaluated on the same FOLDER.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from leakdet_tf.analysis.segment.counts import COUNTS, PerPicture, save_counts
from leakdet_tf.analysis.segment.report import lines, measure, report
from leakdet_tf.config.data import Data, Input
from leakdet_tf.config.schema import Evaluate
from leakdet_tf.core.contract import Contract, classes_of
from leakdet_tf.core.errors import LeakdetError, MissingExtraError
from leakdet_tf.core.files import sha256_bytes, write_json
from leakdet_tf.core.images import ImageSpec, Pixels, as_channels
from leakdet_tf.core.records import Sample
from leakdet_tf.data.items import Item
from leakdet_tf.data.readers import find_items, read, truth_tables
from leakdet_tf.edge.predictor import Predictor
from leakdet_tf.synth.scenery.rendered import CLASSES

SCALES = (1.0, 3.0, 8.0)
"""Standard deviations of the blurs in pixels."""
Features = npt.NDArray[np.float32]


def features(image: Pixels) -> Features:
    """Pixels (H, W, C) → float32 (H, W, C + 12): values, then of the grey picture blurs, deviations, edges; x, y."""
    grey = as_channels(image, 1)[..., 0].astype(np.float32)
    found = [image[..., index].astype(np.float32) for index in range(image.shape[2])]
    for scale in SCALES:
        mean = cv2.GaussianBlur(grey, (0, 0), scale)
        square = cv2.GaussianBlur(grey * grey, (0, 0), scale)
        found += [mean, np.sqrt(np.maximum(square - mean * mean, 0))]
    smooth = cv2.GaussianBlur(grey, (0, 0), SCALES[0])
    along, down = cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)
    found += [cv2.magnitude(along, down), cv2.Laplacian(smooth, cv2.CV_32F)]
    rows, columns = np.indices(grey.shape, dtype=np.float32)
    found += [columns / grey.shape[1], rows / grey.shape[0]]
    return np.stack(found, axis=-1)


class Trees:
    """A classifier of pixels behind the runtime's interface, so that a predictor can answer with it."""

    def __init__(self, model: Any, classes: int) -> None:
        self._model, self._classes = model, classes

    def run(self, inputs: Mapping[str, Pixels]) -> dict[str, npt.NDArray[np.float32]]:
        """Pixels (H, W, C) → probabilities float32 (H, W, classes)."""
        (image,) = inputs.values()
        told = features(image)
        answer = np.zeros((told.shape[0] * told.shape[1], self._classes), np.float32)
        answer[:, self._model.classes_] = self._model.predict_proba(told.reshape(-1, told.shape[2]))
        return {"output_0": answer.reshape(*told.shape[:2], self._classes)}


def chosen_pixels(truths: Sequence[npt.NDArray[Any]], classes: int, number: int, seed: int) -> list[npt.NDArray[Any]]:
    """For each picture positions in its flat mask: ``number`` in all, as many of each class as there are."""
    generator = np.random.default_rng(seed)
    starts = np.cumsum([0, *(truth.size for truth in truths)])
    flat = np.concatenate([truth.ravel() for truth in truths])
    drawn: list[npt.NDArray[Any]] = []
    for index in range(classes):
        places = np.flatnonzero(flat == index)
        drawn.append(generator.choice(places, min(number // classes, places.size), replace=False))
    everything = np.sort(np.concatenate(drawn))
    parts = np.split(everything, np.searchsorted(everything, starts[1:-1]))
    return [part - start for part, start in zip(parts, starts, strict=False)]


def train(samples: Sequence[Sample], classes: int, number: int, *, balanced: bool, seed: int) -> Any:
    """The fitted classifier."""
    try:
        ensemble: Any = import_module("sklearn.ensemble")
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "this benchmark needs scikit-learn, which is not installed", remedy="pip install 'leakdet_tf[test]'"
        ) from error
    truths = [sample.truth for sample in samples if sample.truth is not None]
    places = chosen_pixels(truths, classes, number, seed)
    told = np.concatenate(
        [
            features(next(iter(sample.images.values()))).reshape(truth.size, -1)[place]
            for sample, truth, place in zip(samples, truths, places, strict=True)
        ]
    )
    labels = np.concatenate([truth.ravel()[place] for truth, place in zip(truths, places, strict=True)])
    weights = None
    if not balanced:
        natural = sum(np.bincount(truth.ravel(), minlength=256)[:classes] for truth in truths)
        weights = (natural / np.maximum(np.bincount(labels, minlength=classes), 1))[labels]
        weights /= weights.mean()
    model = ensemble.HistGradientBoostingClassifier(max_iter=200, random_state=seed)
    return model.fit(told, labels, sample_weight=weights)


def main() -> int:
    """Train, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", help="a rendered folder with train and test")
    parser.add_argument("--test", help="another rendered folder whose test part is answered")
    parser.add_argument("--out", help="write metrics.json and counts.npz there, for compare")
    parser.add_argument("--samples", type=int, default=200_000, help="training pixels")
    parser.add_argument("--balanced", action="store_true", help="let all classes weigh alike")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    try:
        run(given)
    except LeakdetError as error:
        print(f"gas_baseline: {error}", file=sys.stderr)
        return 2
    return 0


def run(given: argparse.Namespace) -> None:
    """The whole benchmark for parsed arguments."""
    root = Path(given.folder)
    names = list(CLASSES)
    if (root / "manifest.json").is_file():
        names = json.loads((root / "manifest.json").read_text(encoding="utf-8")).get("classes", names)
    values: dict[str, Any] = {str(index): name for index, name in enumerate(names)} | {"255": "ignore"}
    data = Data(root=str(root), values=values, inputs={"image": Input(size=[1, 1])})
    (table,) = truth_tables(data, names).values()

    def samples(folder: Path) -> tuple[list[Item], list[Sample]]:
        items = find_items(folder, data.sources[0], data.inputs)
        return items, [read(item, table).sample for item in items]

    start = perf_counter()
    _, known = samples(root / "train")
    model = train(known, len(names), given.samples, balanced=given.balanced, seed=given.seed)
    print(
        f"trained on pixels of {len(known)} pictures in {perf_counter() - start:.0f} s, {model.n_iter_} trees a class"
    )
    items, unseen = samples(Path(given.test or root) / "test")
    height, width, channels = unseen[0].images["image"].shape
    spec = ImageSpec(height, width, channels=channels, dtype=str(unseen[0].images["image"].dtype))  # type: ignore[arg-type]
    contract = Contract("segment", {"image": spec}, classes_of(names), experiment="gas_baseline")
    predictor = Predictor.over(Trees(model, len(names)), contract)
    start = perf_counter()
    settings = Evaluate()
    measured = measure(predictor, unseen, settings, seed=42)
    print(f"answered {len(items)} pictures in {perf_counter() - start:.0f} s")
    about = {
        "kind": "boosted trees",
        "weights_sha256": "",
        "experiment": "gas_baseline",
        "data": given.test or given.folder,
        "split": "test",
        "ids_sha256": sha256_bytes("\n".join(measured.ids).encode()),
    }
    found = report(measured, predictor, settings, about)
    print("\n".join(lines(found)))
    if given.out:
        folder = Path(given.out)
        write_json(folder / "metrics.json", found)
        members = measured.labelling.members
        save_counts(
            folder / COUNTS, PerPicture(measured.ids, measured.counts, measured.boundary, members, tuple(names))
        )
        print(f"written: {folder / 'metrics.json'}, {folder / COUNTS}")


if __name__ == "__main__":
    sys.exit(main())

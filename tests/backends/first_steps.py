"""Called in a process of its own for each backend: the first steps of one narrow model of every task.

python first_steps.py train BACKEND FOLDER      twenty steps; weights, losses, answers
python first_steps.py open BACKEND FOLDER FROM  what the models that another one trained answer here
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from leakdet_tf.config.data import Augment
from leakdet_tf.config.train import Train
from leakdet_tf.core.contract import Contract, classes_of
from leakdet_tf.core.images import ImageSpec
from leakdet_tf.core.records import IGNORE
from leakdet_tf.core.tasks.detect import VOID
from leakdet_tf.data.cache import Cache
from leakdet_tf.jobs.run import backend

STEPS, BATCH, COUNT, SIZE = 20, 4, 10, 64
SPECS = {
    "segment": {"rgb": ImageSpec(SIZE, SIZE)},
    "classify": {"thermal": ImageSpec(SIZE, SIZE, 1, "uint16")},
    "detect": {"image": ImageSpec(SIZE, SIZE)},
}
FACTORIES: dict[str, tuple[str, dict[str, Any]]] = {
    "segment": ("unet", {"encoder_options": {"width": 8}, "decoder_filters": [16, 16, 8, 8, 4]}),
    "classify": ("resnet_classifier", {"encoder": "resnet18_v1", "encoder_options": {"width": 8}}),
    "detect": ("yolov8", {"implementation": "native", "channels": [8, 8, 16, 16], "depths": [1, 1, 1, 1]}),
}
CLASSES = {"segment": ["none", "gas", "smoke"], "classify": ["none", "oil", "water"], "detect": ["hot", "cold"]}


def pictures(task: str) -> Cache:
    """Noise with a bright square each, whose place or size is the truth; some of it is ignored."""
    random = np.random.default_rng(7)
    ((name, spec),) = SPECS[task].items()
    most = int(np.iinfo(spec.dtype).max)
    images = random.integers(0, most // 2, (COUNT, *spec.shape)).astype(spec.dtype)
    masks = np.zeros((COUNT, SIZE, SIZE), np.uint8)
    boxes = np.full((COUNT, 20, 6), VOID, np.float32)
    kinds = np.arange(COUNT) % 3
    for i in range(COUNT):
        x, y, side = (int(value) for value in random.integers((0, 0, 9), (30, 30, 30)))
        images[i, y : y + side, x : x + side] += np.asarray(most // 4 * (kinds[i] + 1) // 2, spec.dtype)
        masks[i, y : y + side, x : x + side] = kinds[i]
        masks[i, :4] = IGNORE
        boxes[i, 0] = [x, y, x + side, y + side, kinds[i] % 2, 0]
        boxes[i, 1] = [40, 40, 60, 60, 0, 1]
        boxes[i, 17] = [0, y, 8, y + 9, 1, 0]
    targets = {"segment": masks, "classify": np.eye(3, dtype=np.uint8)[kinds], "detect": boxes}[task]
    return Cache(tuple(map(str, range(COUNT))), {name: images}, targets, ((),) * COUNT)


def built(task: str) -> tuple[Any, Contract]:
    """The model of a task and its contract."""
    from leakdet_tf.models.factories import activation_of, build

    factory, arguments = FACTORIES[task]
    model = build(factory, arguments, inputs=SPECS[task], classes=len(CLASSES[task]), seed=5, task=task)
    return model, Contract(task, SPECS[task], classes_of(CLASSES[task]), activation_of(model))


def answers(model: Any, contract: Contract, cache: Cache) -> np.ndarray:
    """What a model says of the first pictures, one at a time."""
    from leakdet_tf.models.runtime import KerasBackend

    served = KerasBackend(model, contract)
    return np.stack([served.run({n: a[i] for n, a in cache.inputs.items()})["output_0"] for i in range(3)])


def train(task: str, folder: Path) -> dict[str, Any]:
    """Twenty steps from the seed; the model stays in ``folder``."""
    from leakdet_tf.data.pipeline import training
    from leakdet_tf.models.runtime import weights_sha256
    from leakdet_tf.training.callbacks import save_model
    from leakdet_tf.training.loop import compiled

    cache, (model, contract) = pictures(task), built(task)
    begun, first = weights_sha256(model), answers(model, contract, cache)
    trained, metric = compiled(model, contract, Train(batch_size=BATCH, weight_decay=0.01))
    stream = training(cache, batch_size=BATCH, seed=3, settings=Augment(shift=0.1), epochs=STEPS)
    # an "epoch" of one step each: Keras's own figure of an epoch is a mean
    losses = trained.fit(stream, epochs=STEPS, steps_per_epoch=1, shuffle=False, verbose=0).history["loss"]
    save_model(model, folder / f"{task}.keras")
    np.savez(folder / f"{task}.npz", first=first, last=answers(model, contract, cache))
    return {"begun": begun, "ended": weights_sha256(model), "losses": losses, "counted": metric and metric.result()}


def main() -> None:
    """Do it, and leave ``steps.json``."""
    what, name, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    backend.start(name)
    folder.mkdir(parents=True, exist_ok=True)
    if what == "train":
        found = {task: train(task, folder) for task in SPECS}
        (folder / "steps.json").write_text(json.dumps(found, default=float), encoding="utf-8")
        return
    from leakdet_tf.models.runtime import load_model

    for task in SPECS:
        contract = built(task)[1]
        model = load_model(Path(sys.argv[4]) / f"{task}.keras", contract)
        np.savez(folder / f"{task}.npz", last=answers(model, contract, pictures(task)))


if __name__ == "__main__":
    main()

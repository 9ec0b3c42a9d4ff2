"""Whether a process that exports again and again grows.

    python benchmarks/export_memory.py [--rounds 20] [--formats tflite_float32,onnx_float32]

A round does what `leakdet-tf export` does: it loads the ``.keras`` file, converts it to each format, compares,
measures, seals and opens the bundles. The model is a narrow U-Net at 64 px with random weights. Conversions run in
processes of their own; what is measured is the one that calls them: its resident memory after each round. The first
rounds fill caches (TensorFlow's, the runtimes', the allocator's), so the limit is on the rest: at most 2 % from the
third to the last. Keras models are cycles, which Python frees only now and then; here it does before each measurement
(left to itself, memory rises through a few rounds and falls back).
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from leakdet_tf.config.schema import Export
from leakdet_tf.core.contract import Contract, classes_of
from leakdet_tf.core.images import ImageSpec
from leakdet_tf.edge import Predictor
from leakdet_tf.edge.machine import resident
from leakdet_tf.formats.bundle import Evidence, Metric, make_bundle
from leakdet_tf.formats.parity import Recalled

RATIO = 1.02
CONTRACT = Contract("segment", {"image": ImageSpec(64, 64)}, classes_of(["one", "two", "three"]))
_FIRST = 3


def main() -> int:
    """Measure and print; the exit status says whether the limit holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--formats", default="tflite_float32,onnx_float32")
    given = parser.parse_args()
    if given.rounds <= _FIRST:
        parser.error(f"--rounds must be more than {_FIRST}")
    with tempfile.TemporaryDirectory() as folder:
        found = grown(Path(folder), given.formats.split(","), given.rounds)
    ratio = found[-1] / found[_FIRST - 1]
    print(f"round {len(found)} to round {_FIRST}: {ratio:.4f} (limit {RATIO})")
    return 0 if ratio <= RATIO else 1


def grown(folder: Path, formats: list[str], rounds: int) -> list[int]:
    """Bytes of this process in memory after each round of exports from a model that is made in ``folder``."""
    from leakdet_tf.models import unet

    model = unet((64, 64, 3), 3, encoder_options={"width": 8}, decoder_filters=(16, 16, 8, 8, 4), seed=0)
    model.save(folder / "model.keras")
    random = np.random.default_rng(0)
    frames = [{"image": random.integers(0, 256, (80, 96, 3)).astype(np.uint8)} for _ in range(8)]
    found = []
    for number in range(rounds):
        _export(folder, frames, formats)
        gc.collect()
        now = resident()
        if now is None:
            raise SystemExit("this system does not tell how much memory a process has")
        found.append(now[0])
        print(f"round {number + 1}: {now[0] / 2**20:.1f} MiB", flush=True)
    return found


def _export(folder: Path, frames: list[dict[str, np.ndarray]], formats: list[str]) -> None:
    import keras

    from leakdet_tf.models.runtime import KerasBackend

    loaded = keras.saving.load_model(folder / "model.keras", compile=False)
    with tempfile.TemporaryDirectory() as scratch:
        reference = Predictor.over(Recalled(KerasBackend(loaded, CONTRACT), Path(scratch)), CONTRACT)
        figure = Metric("figure", 1.0, None, None)
        evidence = Evidence(reference, frames, figure, lambda _: figure)
        for form in formats:
            settings = Export(max_changed=1e-3)
            make_bundle(folder / "model.keras", CONTRACT, evidence, folder / form, settings, {}, form)


if __name__ == "__main__":
    sys.exit(main())

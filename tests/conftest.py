"""Fixtures that several rooms share: a small rendered folder, a short real run on it, and its bundle."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as jobs.quiet does, before any test imports TensorFlow
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")  # so too
SMALL = (
    "data.synth.counts={train = 16, val = 6, test = 6}",
    "data.synth.size=[64, 64]",
    "data.inputs.image.size=[64, 64]",
    "model.encoder_options={width = 8}",
    "model.decoder_filters=[16, 16, 8, 8, 4]",
    "train.epochs=2",
    "export.pictures=6",
)
"""Overrides that shrink experiments/gas_unet.toml to seconds; everything else is as users run it."""


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's root."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real pictures; tests that need it are marked ``data``."""
    folder = os.environ.get("LEAKDET_SHARED", "")
    if not folder or not (Path(folder) / "data").is_dir():
        pytest.skip("needs the real pictures: set LEAKDET_SHARED to the folder that holds data/ and oracles/")
    return Path(folder)


@pytest.fixture(scope="session")
def overrides(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """``--set`` values for a small run in a folder of its own."""
    folder = tmp_path_factory.mktemp("gas")
    return [*SMALL, f"data.root={folder / 'data'}", f"runs={folder / 'runs'}"]


@pytest.fixture(scope="session")
def run(overrides: list[str]) -> Path:
    """The folder of a small finished run. Read only: copy it before changing it."""
    from leakdet_tf.jobs.fit import fit

    lines: list[str] = []
    return fit(str(ROOT / "experiments" / "gas_unet.toml"), overrides, log=lines.append).folder


@pytest.fixture(scope="session")
def lean_run(overrides: list[str]) -> Iterator[Path]:
    """So too, of a model of a few layers, which is converted in a second. Read only."""
    from leakdet_tf.jobs.fit import fit

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent / "jobs"))
        from few_layers import OVERRIDES

        own = [one for one in overrides if not one.startswith("model.")]
        given = [OVERRIDES[0], *own, "name=lean"]
        yield fit(str(ROOT / "experiments" / "gas_unet.toml"), given, log=lambda line: None).folder


@pytest.fixture(scope="session")
def bundle(run: Path) -> Path:
    """The run's float32 TFLite bundle. Read only: copy it before changing it."""
    return run / "export" / "tflite_float32"


@pytest.fixture
def own_bundle(bundle: Path, tmp_path: Path) -> Path:
    """A copy of the bundle that a test may damage."""
    return Path(shutil.copytree(bundle, tmp_path / "bundle"))

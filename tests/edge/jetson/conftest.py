"""A machine with TensorRT and a GPU, both stand-ins: no test here has seen either."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from leakdet_tf.edge.backends import cuda

STANDINS = Path(__file__).parent / "standins"
MODULES = ("tensorrt", "fake_cuda", "standin_world")


@pytest.fixture
def standins() -> Path:
    """The folder of stand-ins, for child processes."""
    return STANDINS


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """A new machine: ``trt`` and its ``world``, ``cuda``'s state, ``make`` for bundles, and an empty cache."""
    for name in MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(STANDINS))
    monkeypatch.setattr(cuda, "load", cuda.load)
    monkeypatch.setenv("LEAKDET_CACHE", str(tmp_path / "cache"))
    make = importlib.import_module("standin_world")
    yield SimpleNamespace(**vars(make.install()), make=make)
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture
def bundle(device: Any, tmp_path: Path) -> Path:
    """A bundle of kind ``tensorrt`` with calibration pictures."""
    return Path(device.make.bundle(tmp_path / "bundle"))

"""What users import: every factory in one room, no module that hides a function, types that other checkers see."""

from __future__ import annotations

import ast
import configparser
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import leakdet_tf.models as room
from leakdet_tf.core.registry import REGISTRY, resolve

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "leakdet_tf"
# In jobs and cli a file is the command of its name.
MODULES = [
    path
    for name in ("models", "core", "data", "export", "training", "config")
    for path in sorted((PACKAGE / name).rglob("*.py"))
]


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind in ("model", "encoder", "head") for name in REGISTRY[kind]]
)
def test_what_is_registered_is_public(kind: str, name: str) -> None:
    function = resolve(kind, name)
    assert function.__name__ in room.__all__
    assert getattr(room, function.__name__) is function


def test_public_names_are_functions_that_say_what_they_do() -> None:
    assert room.__all__ == sorted(set(room.__all__))
    for name in room.__all__:
        assert inspect.isfunction(getattr(room, name)), name
        assert inspect.getdoc(getattr(room, name)), name


def test_public_names_stay_functions_when_every_module_is_loaded() -> None:
    code = """if True:
        import importlib, inspect, pkgutil
        import leakdet_tf.models as room
        for module in pkgutil.iter_modules(room.__path__):
            importlib.import_module(f"leakdet_tf.models.{module.name}")
        assert all(inspect.isfunction(getattr(room, name)) for name in room.__all__)
        import sys
        print(sorted({"keras_cv", "segmentation_models", "safetensors", "torch"} & set(sys.modules)))
    """
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_has_the_name_of_what_it_defines(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    assert path.stem not in defined


def test_the_mark_of_a_typed_package_is_shipped() -> None:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    assert parser["options.package_data"]["leakdet_tf"].split() == ["py.typed"]
    assert (PACKAGE / "py.typed").is_file()

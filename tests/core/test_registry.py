"""Names to callables: every registered path resolves, wrong ones advise, and listing imports nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from leakdet_tf.core.errors import ModelError
from leakdet_tf.core.registry import REGISTRY, names, resolve

EVERY = [(kind, name) for kind, entries in REGISTRY.items() for name in entries]


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_every_registered_name_resolves(kind: str, name: str) -> None:
    if kind != "generator":
        pytest.importorskip("keras", reason="needs leakdet_tf[train]")
    found = resolve(kind, name)
    assert callable(found)
    assert found.__doc__, f"{kind} {name} has no docstring"
    assert resolve(kind, REGISTRY[kind][name]) is found


@pytest.mark.parametrize("kind", REGISTRY)
def test_names_are_listed_in_order(kind: str) -> None:
    assert names(kind) == sorted(REGISTRY[kind])


def test_a_callable_is_returned_as_it_is() -> None:
    assert resolve("model", len) is len


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        (
            "model",
            "unett",
            "unknown model 'unett'; did you mean 'unet'? Code of your own is named 'package.module:function'",
        ),
        (
            "generator",
            "zzzz",
            "unknown generator 'zzzz'; choose from: crack, gas, hotspot, leak. Code of your own is named",
        ),
        ("encoder", "resnet", "unknown encoder 'resnet'; did you mean 'resnet"),
        ("model", "", "unknown model ''; choose from: "),
        (
            "model",
            "no_such_package.models:unet",
            "model 'no_such_package.models:unet': there is no module 'no_such_package'",
        ),
        ("model", "json.absent:x", "model 'json.absent:x': there is no module 'json.absent'; install its package"),
        ("model", "json:absent", "model 'json:absent': module 'json' has no callable 'absent'; check the part"),
        ("model", "json:__name__", "model 'json:__name__': module 'json' has no callable '__name__'"),
        ("model", "json:", "model 'json:': module 'json' has no callable ''"),
        ("model", ":unet", "model ':unet': '' is no module's name; write"),
        ("model", ".relative:unet", "model '.relative:unet': '.relative' is no module's name; write"),
        ("model", "a/b.py:unet", "model 'a/b.py:unet': 'a/b.py' is no module's name; write"),
        ("model", "a\0b:unet", "model 'a\\x00b:unet': 'a\\x00b' is no module's name; write"),
        ("model", 5, "a model is named by text, not by 5; choose from: "),
        ("loss", ["dice"], "a loss is named by text, not by ['dice']; choose from: cross_entropy, dice"),
    ],
)
def test_a_wrong_name_is_an_error_that_advises(kind: str, name: Any, said: str) -> None:
    with pytest.raises(ModelError) as caught:
        resolve(kind, name)
    assert str(caught.value).startswith(said)


def test_your_own_code_is_found_and_its_own_faults_are_not_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_kit").mkdir()
    (tmp_path / "own_kit" / "__init__.py").touch()
    (tmp_path / "own_kit" / "good.py").write_text("def build():\n    return 'built'\n")
    (tmp_path / "own_kit" / "needy.py").write_text("import a_package_that_is_not_there\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert resolve("model", "own_kit.good:build")() == "built"
    with pytest.raises(ModuleNotFoundError, match="a_package_that_is_not_there"):
        resolve("model", "own_kit.needy:build")


def test_listing_imports_nothing_heavy() -> None:
    code = (
        "import sys; import leakdet_tf.core.registry as r; [r.names(kind) for kind in r.REGISTRY]; "
        "print(sorted({name.split('.')[0] for name in sys.modules} & "
        "{'tensorflow', 'keras', 'pydantic', 'matplotlib', 'numpy', 'PIL', 'cv2'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"

"""The experiment file: read, overridden, written back, and answered in one line when it cannot be followed."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import tomllib
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from leakdet_tf.config.fields import value_range
from leakdet_tf.config.loading import dump, known_keys, load, parse
from leakdet_tf.config.reference import page
from leakdet_tf.config.schema import Experiment
from leakdet_tf.core.errors import ConfigError

ROOT = Path(__file__).parents[2]
EXPERIMENTS = sorted((ROOT / "experiments").glob("*.toml"))
GAS = "experiments/gas_unet.toml"

PLAIN: dict[str, Any] = {
    "name": "plain",
    "task": {"classes": ["background", "gas"]},
    "data": {"root": "data", "values": {"0": "background", "1-255": "gas"}, "inputs": {"image": {"size": [32, 48]}}},
    "model": {"factory": "unet"},
}


@pytest.fixture(autouse=True)
def _in_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def said(*overrides: str, path: str | Path = GAS) -> str:
    """The error's text, which is one printable line."""
    with pytest.raises(ConfigError) as caught:
        load(path, overrides)
    text = str(caught.value)
    assert text.isprintable()
    return text


def changed(place: str, value: Any) -> dict[str, Any]:
    data = copy.deepcopy(PLAIN)
    *parents, last = place.split(".")
    table = data
    for part in parents:
        table = table.setdefault(part, {})
    table[last] = value
    return data


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_experiment_loads_and_returns_from_its_dump(path: Path, tmp_path: Path) -> None:
    experiment = load(path)
    assert experiment.name == path.stem
    (tmp_path / "experiment.toml").write_text(dump(experiment), encoding="utf-8")
    again = load(tmp_path / "experiment.toml")
    assert again == experiment
    assert dump(again) == dump(experiment)


def test_there_are_experiments() -> None:
    assert ROOT / GAS in EXPERIMENTS


def test_a_dump_holds_every_key() -> None:
    full = parse({**PLAIN, "data": {**PLAIN["data"], "split": {}, "synth": SYNTH}})
    written = tomllib.loads(dump(full))
    one = {"name": "one", "root": "data", "values": PLAIN["data"]["values"], "split": {}, "synth": SYNTH}
    several = parse({**PLAIN, "data": {"inputs": PLAIN["data"]["inputs"], "source": [one]}})
    written["data"]["source"] = tomllib.loads(dump(several))["data"]["source"][0]
    staged = parse({**PLAIN, "train": {"stage": [{"epochs": 1, "train": ["head"], "learning_rate": 0.1, "warmup": 0}]}})
    written["train"]["stage"] = tomllib.loads(dump(staged))["train"]["stage"][0]
    for key, _ in known_keys():
        inner: Any = written
        for part in key.replace(".*.", ".image.").split("."):
            inner = inner[part]


SYNTH = {"generator": "gas", "counts": {"train": 1}, "size": [8, 8]}
words = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=12).filter(str.strip)
values = st.recursive(
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text("a\n\"'\\é\x7f"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('aé." ', min_size=1), inner, max_size=3),
    max_leaves=6,
)


@given(words, st.lists(words, min_size=2, max_size=4, unique=True), values, st.floats(1e-300, 1e300))
@settings(max_examples=100, deadline=None)
def test_whatever_is_allowed_returns_from_its_dump(root: str, classes: list[str], value: Any, rate: float) -> None:
    classes = [f"{name}." for name in classes]
    data = changed("data.root", root)
    data["task"] = {"classes": classes, "colors": {classes[0]: "#AbCdEf"}}
    data["data"]["values"] = {"7": classes[1], "9-12": "ignore"}
    data["model"]["own"] = value
    data["train"] = {"learning_rate": rate}
    experiment = parse(data)
    assert parse(tomllib.loads(dump(experiment))) == experiment


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("train.epochs=3", "train.epochs", 3),
        (" train.epochs = 3 ", "train.epochs", 3),
        ("train.learning_rate=1e-3", "train.learning_rate", 0.001),
        ("train.learning_rate=1", "train.learning_rate", 1.0),
        ("data.root=/some where/ünï", "data.root", "/some where/ünï"),
        ("data.root=C:\\pictures", "data.root", "C:\\pictures"),
        ("data.root='quoted = path'", "data.root", "quoted = path"),
        ("data.root=a=b#c", "data.root", "a=b#c"),
        ("data.root=2024", "data.root", "2024"),
        ("data.root=2024-05-01", "data.root", "2024-05-01"),
        ("data.root=true", "data.root", "true"),
        ("name=1e3", "name", "1e3"),
        ("data.split.manifest=", "data.split.manifest", ""),
        ("data.split.group=([0-9]+)_", "data.split.group", "([0-9]+)_"),  # makes the table
        ("data.inputs.image.size=[64, 96]", "data.inputs.image.size", [64, 96]),
        ("data.synth.counts={train = 4, val = 2}", "data.synth.counts", {"train": 4, "val": 2}),
        ("data.values={0 = 'background', '1-2' = 'gas'}", "data.values", {"0": "background", "1-2": "gas"}),
        ("data.values.5=ignore", "data.values", {"0": "background", "1": "gas", "2": "machine", "5": "ignore"}),
        ('task.colors."gas"="#010203"', "task.colors", {"gas": "#010203"}),
        ("task.colors.gas=#010203", "task.colors", {"gas": "#010203"}),
        ("export.formats=[]", "export.formats", []),
        ("train={epochs = 4}", "train.epochs", 4),
    ],
)
def test_set_overrides_a_key(override: str, key: str, value: Any) -> None:
    found: Any = load(GAS, [override]).model_dump()
    for part in key.split("."):
        found = found[part]
    assert found == value
    assert type(found) is type(value)


def test_set_gives_factory_arguments_their_toml_types() -> None:
    overrides = ["model.a.b.c=7", "model.a.d=x", "model.flag=true", "model.day=2024", "model.encoder=resnet34"]
    arguments = load(GAS, overrides).model.arguments
    assert arguments["a"] == {"b": {"c": 7}, "d": "x"}
    assert (arguments["flag"], arguments["day"], arguments["encoder"]) == (True, 2024, "resnet34")


def test_later_overrides_win() -> None:
    assert load(GAS, ["train.epochs=3", "train.epochs=5"]).train.epochs == 5
    assert load(GAS, ["train={epochs = 3}", "train.batch_size=2"]).train.batch_size == 2


@pytest.mark.parametrize("override", ["train.epochs", "=3", "", "train..epochs=3", ".=3", "task.colors.'a=1"])
def test_an_override_of_another_form_is_refused(override: str) -> None:
    text = said(override)
    assert text.startswith("--set ")
    assert text.endswith(": not of the form table.key=value; such as --set train.epochs=3")


def test_an_override_cannot_go_through_a_value() -> None:
    assert said("train.epochs.x=1") == "--set train.epochs.x=1: 'epochs' is a value, not a table; shorten the key"
    assert said("name.x.y=1") == "--set name.x.y=1: 'name' is a value, not a table; shorten the key"
    assert said("data.root=\udcff") == "--set data.root=\\udcff: not UTF-8 text; rename the file or folder"


ALLOWED = "docs/experiment-file.md lists what is allowed"
MEANT = "docs/experiment-file.md says what it means"


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        ("train.lrr=1", "train.lrr: unknown key; did you mean 'learning_rate'?"),
        ("train.root=x", "train.root: unknown key; did you mean 'data.root'?"),
        ("evaluate.seed=1", "evaluate.seed: unknown key; did you mean 'seed'?"),
        (
            "train={backend = 'torch', xla = true}",
            'train.xla: is for backend = "tensorflow" alone; docs/experiment-file.md lists what is allowed',
        ),
        ("trian.epochs=3", "trian: unknown key; did you mean 'train'?"),
        ("task.clases=['a']", "task.clases: unknown key; did you mean 'classes'?"),
        ("data.inputs.image.sizee=[1, 2]", "data.inputs.image.sizee: unknown key; did you mean 'size'?"),
        ("data.inputs.fit.sizes=[1]", "data.inputs.fit.sizes: unknown key (and 1 more); did you mean 'size'?"),
        (
            "train.a\nb=3",
            "train.a\\nb: unknown key; choose from: accumulate, backend, batch_size, checkpoint_every, "
            "checkpoint_seconds, checkpoint_steps, class_weights, deterministic, epochs, focal_gamma, keep, "
            "label_smoothing, learning_rate, loss, loss_limit, loss_weights, patience, precision, schedule, stage, "
            "warmup, weight_decay, xla",
        ),
        (
            "data.synth={generator = 'gas', size = [8, 8]}",
            "data.synth.counts: missing; docs/experiment-file.md says what it means",
        ),
        ("train.epochs='3'", f"train.epochs: input should be a valid integer (got '3'); {ALLOWED}"),
        ("train.epochs=3.0", f"train.epochs: input should be a valid integer (got 3.0); {ALLOWED}"),
        ("train.epochs=true", f"train.epochs: input should be a valid integer (got true); {ALLOWED}"),
        ("train.epochs=2024-05-01", f"train.epochs: input should be a valid integer (got 2024-05-01); {ALLOWED}"),
        ("train.learning_rate=true", f"train.learning_rate: input should be a valid number (got true); {ALLOWED}"),
        ("train.learning_rate=nan", f"train.learning_rate: input should be a finite number (got nan); {ALLOWED}"),
        ("train.learning_rate=inf", f"train.learning_rate: input should be a finite number (got inf); {ALLOWED}"),
        ("train.learning_rate=0", f"train.learning_rate: input should be greater than 0 (got 0); {ALLOWED}"),
        ("train.loss=dice", f"train.loss: input should be a valid list (got 'dice'); {ALLOWED}"),
        ("train.stage=[{epochs=1}]", "train.stage.0.train: missing; docs/experiment-file.md says what it means"),
        ("train.loss=[1]", f"train.loss.0: input should be a valid string (got 1); {ALLOWED}"),
        ("data=3", f"data: must be a table (got 3); {ALLOWED}"),
        ("data.values=3", f"data.values: must be a table (got 3); {ALLOWED}"),
        ("data.root=", f"data.root: missing; name a folder, or give [[data.source]] tables; {ALLOWED}"),
        ("data.inputs={}", f"data.inputs: table should have at least 1 item, not 0; {ALLOWED}"),
        (
            "data.inputs.image.channels=true",
            f"data.inputs.image.channels: input should be 1 or 3 (got true); {ALLOWED}",
        ),
        ("data.inputs.image.channels=2", f"data.inputs.image.channels: input should be 1 or 3 (got 2); {ALLOWED}"),
        (
            "data.inputs.image.pad=256",
            f"data.inputs.image.pad: does not fit uint8, whose largest value is 255 (got 256); {ALLOWED}",
        ),
        ("data.values.3=smoke", f"data.values: 3 = 'smoke' is not among task.classes; {ALLOWED}"),
        ("data.values.2-4=gas", f"data.values: '2-4' overlaps another entry; {ALLOWED}"),
        ("task.colors.gaz=#000000", f"task.colors: 'gaz' is not among task.classes; {ALLOWED}"),
        ("data.split.train=0.5", f"data.split: train + val + test must be 1, are 0.8; {ALLOWED}"),
        ("model.rate=nan", f"model: rate holds nan or inf; {ALLOWED}"),
        ("model.deep={a = [1, inf]}", f"model: deep holds nan or inf; {ALLOWED}"),
    ],
)
def test_messages_to_the_letter(overrides: str, text: str) -> None:
    assert said(overrides) == f"{GAS}: {text}"


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("name", ""),
        ("name", "../up"),
        ("name", "a\n"),
        ("name", "x" * 65),
        ("seed", -1),
        ("seed", 2**31),
        ("seed", True),
        ("runs", "  "),
        ("runs", "a\0b"),
        ("task.kind", "caption"),
        ("task.classes", ["a"]),
        ("task.classes", ["a", "a"]),
        ("task.classes", ["a", ""]),
        ("task.classes", ["background", "gas", "ignore"]),
        ("task.classes", [f"c{i}" for i in range(255)]),
        ("task.colors", {"gas": "red"}),
        ("data.masks", ""),
        ("data.values", {}),
        ("data.inputs", {"a b": {"size": [1, 1]}}),
        ("data.inputs.image.size", [1]),
        ("data.inputs.image.size", [1, 0]),
        ("data.inputs.image.size", [1, 8193]),
        ("data.inputs.image.size", [1.0, 2]),
        ("data.inputs.image.size", "12"),
        ("data.inputs.image.dtype", "float32"),
        ("data.inputs.image.channels", 3.0),
        ("data.inputs.image.channels", True),
        ("data.inputs.image.pad", -1),
        ("data.synth", {**SYNTH, "counts": {}}),
        ("data.synth", {**SYNTH, "counts": {"train": -1}}),
        ("data.synth", {**SYNTH, "counts": {"trian": 1}}),
        ("data.split.group", "(a"),
        ("data.split.group", "(a)(b)"),
        ("data.split.group", "a"),
        ("data.split.train", 1.5),
        ("data.augment.contrast", -0.1),
        ("model.factory", ""),
        ("model.own", 2**63),
        ("model.own", eval("[" * 17 + "]" * 17)),
        ("evaluate.confidence", 1),
        ("evaluate.confidence", 0.5),
        ("evaluate.resamples", 99),
        ("export.formats", ["onnx"]),
        ("export.golden", 17),
    ],
)
def test_values_out_of_range_are_refused_with_their_key(place: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(changed(place, value), where="plain.toml")
    text = str(caught.value)
    assert text.startswith(f"plain.toml: {place.removesuffix('.own')}")
    assert text.isprintable()
    assert len(text) < 300


def test_numbers_of_thousands_of_digits_are_refused() -> None:
    assert said("train.epochs=0x" + "f" * 9000).endswith(f" (got a number of thousands of digits); {ALLOWED}")
    assert "model: own holds an integer of more than 64 bits" in said("model.own=0x" + "f" * 9000)
    assert len(said("train.epochs=" + "9" * 5000)) < 250
    assert len(said("train.epochs=" + "[" * 50_000)) < 250


def test_every_problem_is_counted() -> None:
    with pytest.raises(ConfigError, match=r"^experiment: name: missing \(and 3 more\); docs"):
        parse({})
    with pytest.raises(ConfigError, match=r"^experiment: nam: unknown key \(and 4 more\); did you mean 'name'\?$"):
        parse({"nam": "x"})


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"name = \n", "not valid TOML (Invalid value (at line 1, column 8)); fix that line"),
        (
            b"name = 'a'\nname = 'b'\n",
            "not valid TOML (Cannot overwrite a value (at line 2, column 11)); fix that line",
        ),
        (b"\xff\xfe", "not UTF-8 text (invalid start byte); save it as UTF-8"),
        ("name = 'größe'".encode("latin-1"), "not UTF-8 text (invalid start byte); save it as UTF-8"),
        (b"seed = " + b"9" * 5000, "not valid TOML (Exceeds the limit (4300 digits)"),
        (b"seed = " + b"[" * 50_000, "not valid TOML ("),
        (b'"a\\nb\\u001b" = 1\n', "a\\nb\\x1b: unknown key (and 4 more); choose from: data, "),
        (b"[[task]]\nclasses = []\n", "name: missing (and 3 more); "),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(content: bytes, text: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    assert said(path=path).startswith(f"{path}: {text}")


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    assert said(path="absent.toml") == "absent.toml: cannot be read (No such file or directory); check the path"
    assert said(path=tmp_path) == f"{tmp_path}: cannot be read (Is a directory); check the path"
    assert said(path="a\0b.toml").startswith("a\\x00b.toml: cannot be read (")


def test_a_mark_of_utf8_is_read_over(tmp_path: Path) -> None:
    (tmp_path / "marked.toml").write_text(tomli_w.dumps(PLAIN), encoding="utf-8-sig")
    assert load(tmp_path / "marked.toml") == parse(PLAIN)


@pytest.mark.parametrize(
    ("key", "found"), [("0", range(1)), ("255", range(255, 256)), ("7-9", range(7, 10)), ("3-3", range(3, 4))]
)
def test_mask_values(key: str, found: range) -> None:
    assert value_range(key) == found


@pytest.mark.parametrize(
    "key", ["", "256", "-1", "5-4", "0-256", "1-", "1-2-3", "a", " 1", "1\n", "١", "0x1", "9" * 5000]
)
def test_what_is_no_mask_value(key: str) -> None:
    with pytest.raises(ValueError, match="neither a mask value"):
        value_range(key)


def test_known_keys_are_those_of_the_schema() -> None:
    def walk(schema: dict[str, Any], prefix: str = "") -> set[str]:
        if "$ref" in schema:
            schema = definitions[schema["$ref"].rsplit("/", 1)[1]]
        found = set()
        for branch in schema.get("anyOf", []):
            found |= walk(branch, prefix)
        for name, inner in schema.get("properties", {}).items():
            found |= {f"{prefix}{name}"} | walk(inner, f"{prefix}{name}.")
        for inner in (schema.get("additionalProperties"), *schema.get("patternProperties", {}).values()):
            if isinstance(inner, dict):
                found |= walk(inner, f"{prefix}*.")
        if isinstance(schema.get("items"), dict):
            found |= walk(schema["items"], prefix)
        return found

    schema = Experiment.model_json_schema()
    definitions = schema["$defs"]
    listed = [key for key, _ in known_keys()]
    assert len(listed) == len(set(listed))
    assert set(listed) == walk(schema)
    for key, table in known_keys():
        field = table.model_fields[key.rsplit(".", 1)[-1]]
        holds_table = isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        assert field.description or holds_table, f"{key} has no description"


def test_the_reference_page_is_that_of_the_schema() -> None:
    assert (ROOT / "docs" / "experiment-file.md").read_text(encoding="utf-8") == page(), (
        "run: python -m leakdet_tf.config.reference > docs/experiment-file.md"
    )
    assert "| `data.inputs.*.size` | list of 2 integers ≥ 1, ≤ 8192 | required | " in page()
    assert '| `export.formats` | list of `"tflite_float32"` or `"tflite_float16"` or ' in page()
    assert '`"tensorrt"` | `["tflite_float32"]` | ' in page()


def test_reading_an_experiment_imports_no_trainer() -> None:
    code = (
        "import sys, leakdet_tf.config.loading; "
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'tensorflow', 'keras', 'matplotlib', 'cv2'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"

"""The prompt file: what it may say, and what is said when it cannot be followed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from leakdet_tf.config.diffusion import Diffusion, load, pieces
from leakdet_tf.config.reading import keys
from leakdet_tf.core.errors import ConfigError

EXAMPLE = Path(__file__).parents[2] / "experiments" / "paper" / "leak_diffusion.toml"
HEAD = 'model = "m"\nsize = [64, 32]\n'
PROMPT = '[[prompt]]\ntext = "a leak"\nlabels = ["leak"]\ncounts = {train = 2}\n'


def _load(tmp_path: Path, text: str, *overrides: str) -> Diffusion:
    path = tmp_path / "p.toml"
    path.write_text(text, encoding="utf-8")
    return load(path, overrides)


def _refusal(tmp_path: Path, text: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        _load(tmp_path, text, *overrides)
    said = str(caught.value)
    assert "\n" not in said
    return said.removeprefix(f"{tmp_path / 'p.toml'}: ")


def test_a_short_file_and_its_defaults(tmp_path: Path) -> None:
    order = _load(tmp_path, HEAD + PROMPT)
    assert (order.mode, order.parts, order.steps, order.device, order.dtype) == (
        "text2image",
        ["train"],
        30,
        "auto",
        "auto",
    )
    assert order.prompt[0].counts == {"train": 2}
    assert order.prompt[0].value == 1


def test_the_model_has_no_default(tmp_path: Path) -> None:
    said = _refusal(tmp_path, "size = [64, 64]\n" + PROMPT)
    assert said == "model: missing; experiments/paper/leak_diffusion.toml says what it means"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (HEAD + "guidence = 3.0\n" + PROMPT, "guidence: unknown key; did you mean 'guidance'?"),
        (HEAD + PROMPT + "count = 3\n", "prompt.0.count: unknown key; did you mean 'counts'?"),
        (HEAD + PROMPT.replace("counts = {train = 2}", ""), "prompt.0.counts: missing;"),
        (HEAD + PROMPT.replace("train = 2", "train = 0"), "prompt.0.counts.train: input should be greater than"),
        (HEAD + PROMPT.replace("{train = 2}", "{}"), "prompt.0.counts: table should have at least 1 item"),
        (HEAD + PROMPT.replace("train", "trian"), "prompt.0.counts.trian: input should be 'train', 'val'"),
        (HEAD.replace("32", "36") + PROMPT, "size: 36 is no multiple of 8 (got [64, 36])"),
        (HEAD.replace(", 32", "") + PROMPT, "size: list should have at least 2 items"),
        (HEAD, "prompt: missing;"),
        (HEAD + PROMPT.replace("a leak", "a {leak"), "prompt.0.text: '{' is never closed, before 'leak'"),
        (HEAD + PROMPT.replace("a leak", "a leak}"), "prompt.0.text: '}' without '{' in front of it, behind 'a leak'"),
        (HEAD + PROMPT.replace("a leak", "a {b|{c}}"), "prompt.0.text: braces inside braces, in '{b|{c}'"),
        (HEAD + PROMPT.replace("a leak", "a {b}"), "prompt.0.text: '{b}' offers no choice; write {one|another}"),
        (HEAD + PROMPT.replace("a leak", "{ | }"), "prompt.0.text: says nothing"),
        (HEAD + PROMPT.replace("a leak", " "), "prompt.0.text: must not be empty"),
        (HEAD + PROMPT.replace('["leak"]', '["a;b"]'), "prompt.0.labels.0: holds ';'"),
        (HEAD + PROMPT.replace('["leak"]', '["a", "a"]'), "prompt.0.labels: a label stands twice"),
        (HEAD + PROMPT.replace("train = 2", "test = 2"), "parts: prompt.0.counts asks for test, which is not among"),
        (HEAD + 'mode = "inpaint"\n' + PROMPT, "inpaint: missing; mode 'inpaint' needs [inpaint] with backgrounds"),
        (HEAD + 'inpaint = {backgrounds = "b"}\n' + PROMPT, "inpaint: mode 'text2image' paints into no photographs"),
        (
            HEAD + 'mode = "inpaint"\ninpaint = {backgrounds = "b", area = [0.2, 0.1]}\n' + PROMPT,
            "inpaint.area: the smallest puddle is larger than the largest",
        ),
        (HEAD + "steps = true\n" + PROMPT, "steps: input should be a valid integer (got true)"),
        (HEAD + "seed = -1\n" + PROMPT, "seed: input should be greater than or equal to 0"),
        (HEAD + 'device = "tpu"\n' + PROMPT, "device: input should be 'auto', 'cpu' or 'cuda' (got 'tpu')"),
        (HEAD + "guidance = nan\n" + PROMPT, "guidance: input should be"),
        ("size = [\n", "not valid TOML"),
    ],
)
def test_each_fault_is_one_line_with_its_key(tmp_path: Path, text: str, said: str) -> None:
    assert _refusal(tmp_path, text).startswith(said)


def test_synthetic_test_pictures_must_be_meant(tmp_path: Path) -> None:
    text = HEAD + 'parts = ["train", "test"]\n' + PROMPT.replace("train = 2", "train = 2, test = 1")
    assert _load(tmp_path, text).prompt[0].counts == {"train": 2, "test": 1}


def test_overrides_reach_every_table(tmp_path: Path) -> None:
    order = _load(tmp_path, HEAD + PROMPT, "steps=4", "prompt.0.counts.train=9", "model=2024", "mode=text2image")
    assert (order.steps, order.prompt[0].counts, order.model) == (4, {"train": 9}, "2024")
    said = _refusal(tmp_path, HEAD + PROMPT, "prompt.1.value=3")
    assert said == (
        "--set prompt.1.value=3: '1' is none of the 1 tables there; "
        "they are numbered from 0, such as prompt.0.counts.train=4"
    )
    assert _refusal(tmp_path, HEAD + PROMPT, "steps").endswith("such as --set steps=20")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read"):
        load(tmp_path / "none.toml")


def test_pieces_of_a_prompt() -> None:
    assert pieces("a {red|dark blue|} pipe{|s}") == [["a "], ["red", "dark blue", ""], [" pipe"], ["", "s"]]
    assert pieces("plain") == [["plain"]]


def test_the_example_loads_and_names_every_key_with_its_default() -> None:
    order = load(EXAMPLE)
    assert {label for prompt in order.prompt for label in prompt.labels} == {"oil_leak", "water_leak", "no_leak"}
    assert sum(prompt.counts["train"] for prompt in order.prompt) == 1470
    text = EXAMPLE.read_text(encoding="utf-8")
    for key, table in keys(Diffusion):
        field = table.model_fields[key.rpartition(".")[2]]
        if key in ("prompt", "inpaint"):
            assert f"[{key}]" in text
            continue
        (line, *_) = re.findall(rf"^(?:# )?{key.rpartition('.')[2]} = .*$", text, re.M) or [""]
        assert line, f"{key} is not explained"
        if line.startswith("# ") and not field.is_required():
            shown = line.partition(" = ")[2].partition("#")[0].strip()
            default = field.get_default(call_default_factory=True)
            assert shown.replace('"', "'") == repr(default).replace('"', "'"), key

"""The real loading and painting code, on a pipeline of a few thousand random weights that is made here."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from leakdet_tf.cli.synth_diffusion import command
from leakdet_tf.config.diffusion import Diffusion, load
from leakdet_tf.core.errors import LeakdetError, MissingExtraError, ModelError
from leakdet_tf.core.files import sha256_file
from leakdet_tf.synth.diffusion import painter as diffusion
from leakdet_tf.synth.diffusion import prompted
from leakdet_tf.synth.diffusion.prompted import paint_folder

real = pytest.mark.skipif(
    any(util.find_spec(name) is None for name in diffusion.PACKAGES),
    reason="needs diffusers and torch: pip install 'leakdet_tf[diffusion]' torch==2.13.0",
)
LETTERS = [chr(code) for code in range(33, 127)]
TEXT = """
size = [32, 64]
steps = 2
seed = 3
negative = "people"
[[prompt]]
text = "a {dark|brown} puddle"
labels = ["leak"]
counts = {train = 3}
"""


def _tiny(folder: Path, *, channels: int = 4, checker: bool = False) -> None:
    """A Stable Diffusion with one block a level, an alphabet for its tokens and weights of seed 0."""
    import diffusers
    import torch
    import transformers

    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel(
        block_out_channels=(8, 16),
        layers_per_block=1,
        sample_size=8,
        in_channels=channels,
        out_channels=4,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=4,
    )
    vae = diffusers.AutoencoderKL(
        block_out_channels=[4] * 4,
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        latent_channels=4,
        norm_num_groups=4,
    )
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1}
    words = transformers.CLIPTextConfig(**sizes, vocab_size=200, bos_token_id=0, eos_token_id=1, pad_token_id=1)
    alphabet = ["<|startoftext|>", "<|endoftext|>", *LETTERS, *(letter + "</w>" for letter in LETTERS)]
    source = folder.with_name(f"{folder.name}_alphabet")
    source.mkdir()
    (source / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(alphabet)}))
    (source / "merges.txt").write_text("#version: 0.2\n")
    parts: dict[str, Any] = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    if checker:
        from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker

        eyes = transformers.CLIPConfig(
            text_config=sizes, vision_config={**sizes, "image_size": 32, "patch_size": 8}, projection_dim=8
        )
        guard = StableDiffusionSafetyChecker(eyes)
        torch.nn.init.constant_(guard.concept_embeds_weights, -2.0)  # every picture is more like it than that
        edge = {"height": 32, "width": 32}
        parts = {
            "safety_checker": guard,
            "feature_extractor": transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=edge),
        }
    kind = diffusers.StableDiffusionPipeline if channels == 4 else diffusers.StableDiffusionInpaintPipeline
    kind(
        vae=vae,
        unet=unet,
        text_encoder=transformers.CLIPTextModel(words),
        tokenizer=transformers.CLIPTokenizer.from_pretrained(str(source), model_max_length=77),
        scheduler=diffusers.DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
        ),
        **parts,
    ).save_pretrained(folder)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders ``plain``, ``inpaint`` (9 channels) and ``guarded`` (its checker flags everything). Read only."""
    import torch

    torch.set_num_threads(1)  # for so little work a second one only waits, and longest where other work runs
    root = tmp_path_factory.mktemp("models")
    _tiny(root / "plain")
    _tiny(root / "inpaint", channels=9)
    _tiny(root / "guarded", checker=True)
    return root


@pytest.fixture
def order(tmp_path: Path, models: Path) -> Callable[..., Diffusion]:
    """A prompt file's content; the model is named by its folder in ``models``, or by a path."""

    def read(model: str | Path = "plain", *overrides: str) -> Diffusion:
        path = tmp_path / "p.toml"
        path.write_text(TEXT, encoding="utf-8")
        return load(path, [f"model={models / model}", *overrides])

    return read


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 70, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photos" / "a.png")
    return tmp_path / "photos"


def _paint(root: Path, asked: Diffusion) -> dict[str, str]:
    for _ in paint_folder(root, asked, lambda: diffusion.load(asked, ["a dark puddle"])):
        pass
    return _files(root)


def _files(root: Path) -> dict[str, str]:
    return {path.relative_to(root).as_posix(): sha256_file(path) for path in root.rglob("*") if path.is_file()}


def _refusal(asked: Diffusion, *texts: str) -> str:
    with pytest.raises(ModelError) as caught:
        diffusion.load(asked, texts)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@real
def test_the_same_seed_gives_the_same_bytes(tmp_path: Path, order: Callable[..., Diffusion]) -> None:
    first = _paint(tmp_path / "a", order())
    assert _paint(tmp_path / "b", order()) == first
    assert len({digest for name, digest in first.items() if "images" in name}) == 3
    other = _paint(tmp_path / "c", order("plain", "seed=4"))
    assert not set(other.values()) & {digest for name, digest in first.items() if "images" in name}


@real
def test_what_is_written_says_how_it_was_painted(tmp_path: Path, order: Callable[..., Diffusion]) -> None:
    _paint(tmp_path / "a", order())
    picture = json.loads((tmp_path / "a" / "manifest.json").read_text())["pictures"][1]
    with Image.open(tmp_path / "a" / picture["file"]) as image:
        assert (image.mode, image.size) == ("RGB", (64, 32))
        assert np.asarray(image).std() > 1
    said = picture["parameters"]
    assert (said["pipeline"], said["scheduler"]) == ("StableDiffusionPipeline", "DDIMScheduler")
    assert (said["negative"], said["flagged"], said["dtype"], said["revision"]) == ("people", None, "float32", "")
    assert set(said["versions"]) == {"diffusers", "torch", "transformers"}
    assert len(said["weights_sha256"]) == 64


@real
@pytest.mark.parametrize("model", ["plain", "inpaint"])
def test_inpainting_with_either_kind_of_model(
    tmp_path: Path, order: Callable[..., Diffusion], photos: Path, model: str
) -> None:
    asked = order(model, "mode=inpaint", f"inpaint.backgrounds={photos}", "inpaint.area=[0.2, 0.4]")
    first = _paint(tmp_path / "a", asked)
    assert _paint(tmp_path / "b", asked) == first
    for picture in json.loads((tmp_path / "a" / "manifest.json").read_text())["pictures"]:
        mask = np.asarray(Image.open(tmp_path / "a" / picture["mask"]))
        assert mask.shape == (32, 64)
        assert sorted(np.unique(mask)) == [0, 1]
        assert picture["parameters"]["pipeline"] == "StableDiffusionInpaintPipeline"


@real
def test_prompt_and_guidance_reach_the_model(order: Callable[..., Diffusion]) -> None:
    painter = diffusion.load(order(), [])
    dark, brown, again = (painter.paint(text, 1, None).image for text in ("dark", "brown", "dark"))
    assert np.array_equal(dark, again)
    assert not np.array_equal(dark, brown)
    for other in (order("plain", "guidance=1.0"), order("plain", "steps=3"), order("plain", "negative=")):
        assert not np.array_equal(diffusion.load(other, []).paint("dark", 1, None).image, dark)


@real
def test_a_safety_checker_s_answer_is_passed_on(tmp_path: Path, order: Callable[..., Diffusion]) -> None:
    painted = diffusion.load(order("guarded"), []).paint("dark", 1, None)
    assert painted.flagged is True
    with pytest.raises(LeakdetError, match=r"prompt\.0: the model's safety checker blackened 4 pictures"):
        _paint(tmp_path / "a", order("guarded"))


@real
def test_models_with_pickles_or_code_are_refused(tmp_path: Path, models: Path, order: Callable[..., Diffusion]) -> None:
    import torch

    pickled = Path(shutil.copytree(models / "plain", tmp_path / "pickled"))
    (pickled / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    torch.save({}, pickled / "unet" / "diffusion_pytorch_model.bin")
    said = _refusal(order(pickled))
    assert "its unet has only pickled weights (diffusion_pytorch_model.bin), which can run any code; choose" in said

    coded = Path(shutil.copytree(models / "plain", tmp_path / "coded"))
    index = json.loads((coded / "model_index.json").read_text())
    (coded / "unet" / "mine.py").write_text("raise SystemExit('ran')\n")
    (coded / "model_index.json").write_text(json.dumps({**index, "unet": ["mine", "Model"]}))
    assert "its unet is code of its own (mine); choose another model" in _refusal(order(coded))
    (coded / "model_index.json").write_text(json.dumps({**index, "_class_name": ["pipeline", "Mine"]}))
    assert "names a pipeline of its own" in _refusal(order(coded))


@real
def test_models_that_are_none_or_damaged(
    tmp_path: Path, models: Path, order: Callable[..., Diffusion], capsys: pytest.CaptureFixture[str]
) -> None:
    assert "nowhere: no such folder; name a folder, or a hub id such as" in _refusal(order(tmp_path / "nowhere"))
    mute = Path(shutil.copytree(models / "plain", tmp_path / "mute"))
    (mute / "tokenizer" / "tokenizer.json").unlink()
    assert "mute: its tokenizer knows no word of 'a dark puddle'; fetch or copy" in _refusal(
        order(mute), "a dark puddle"
    )
    (tmp_path / "empty").mkdir()
    assert "model_index.json: cannot be read (No such file or directory)" in _refusal(order(tmp_path / "empty"))
    for number, fault in enumerate(
        (
            lambda at: (at / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"\x08" * 100),
            lambda at: (at / "vae" / "diffusion_pytorch_model.safetensors").unlink(),
            lambda at: (at / "unet" / "config.json").write_text("{"),
            lambda at: shutil.rmtree(at / "tokenizer"),
            lambda at: (at / "text_encoder" / "config.json").unlink(),
        )
    ):
        broken = Path(shutil.copytree(models / "plain", tmp_path / f"broken{number}"))
        fault(broken)
        said = _refusal(order(broken))
        assert f"broken{number}: " in said
        wanted = "its tokenizer is missing" if number == 3 else "cannot be loaded for text2image ("
        assert wanted in said
        assert capsys.readouterr().err == ""


@real
def test_what_cannot_be_done_is_said_before_anything_is_painted(order: Callable[..., Diffusion]) -> None:
    import torch

    assert "it was not made for text2image; set mode = " in _refusal(order("inpaint"))
    assert "dtype: float16 needs a GPU" in _refusal(order("plain", "dtype=float16", "device=cpu"))
    assert "plain is a folder, which has none; leave it out" in _refusal(order("plain", "revision=main"))
    said = _refusal(order(), "short", "word " * 40)
    assert "is 162 tokens long, and " in said
    assert said.endswith("reads 77; shorten it: the end would be ignored")
    if not torch.cuda.is_available():
        assert "device: torch finds no CUDA GPU" in _refusal(order("plain", "device=cuda"))


@real
def test_precision_is_what_was_asked_for(order: Callable[..., Diffusion]) -> None:
    exact = diffusion.load(order("plain", "device=cpu"), [])
    rough = diffusion.load(order("plain", "dtype=bfloat16", "device=cpu"), [])
    assert (exact.about["dtype"], rough.about["dtype"]) == ("float32", "bfloat16")
    apart = np.abs(exact.paint("dark", 1, None).image.astype(int) - rough.paint("dark", 1, None).image)
    assert 0 < apart.mean() < 30


@real
@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (np.full((32, 64, 3), np.nan), 'painted NaN in float32; set dtype = "bfloat16"'),
        (np.zeros((48, 64, 3)), r"size 32 x 64: .* painted 48 x 64 pixels; choose a size"),
    ],
)
def test_answers_that_are_no_pictures(order: Callable[..., Diffusion], answer: np.ndarray[Any, Any], said: str) -> None:
    def pipeline(**_: Any) -> SimpleNamespace:
        return SimpleNamespace(images=[answer], nsfw_content_detected=None)

    with pytest.raises(ModelError, match=said):
        diffusion.DiffusersPainter(pipeline, order(), {"dtype": "float32"}).paint("dark", 1, None)


@real
@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="kills a process the POSIX way")
def test_a_killed_process_is_gone_on_from_with_the_same_bytes(
    tmp_path: Path, order: Callable[..., Diffusion], models: Path
) -> None:
    steps = ("steps=60", "prompt.0.counts.train=5")
    whole = _paint(tmp_path / "whole", order("plain", *steps))
    root = tmp_path / "set"
    words = [str(tmp_path / "p.toml"), str(root), f"--set=model={models / 'plain'}", *(f"--set={x}" for x in steps)]
    script = f"from leakdet_tf.cli.synth_diffusion import command; command({words!r})"
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=env
    )
    for _ in range(6000):
        if prompted.kept(root) or process.poll() is not None:
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    _, said = process.communicate()
    assert process.returncode == -signal.SIGKILL, said.decode()
    assert 1 <= prompted.kept(root) < 5
    assert _paint(root, order("plain", *steps)) == whole


HUB = """
import http.server
class Hub(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        found = [word for word in ("RepoNotFound", "RevisionNotFound", "GatedRepo") if word in self.path]
        self.send_response(404 if found else 503)
        self.send_header("X-Error-Code", found[0] if found else "")
        self.send_header("Content-Length", "0")
        self.end_headers()
    do_HEAD = do_GET
    def log_message(self, *_): pass
server = http.server.HTTPServer(("127.0.0.1", 0), Hub)
print(server.server_port, flush=True)
server.serve_forever()
"""
ASK = """
from leakdet_tf.config.diffusion import load
from leakdet_tf.core.errors import ModelError
from leakdet_tf.synth.diffusion import painter as diffusion
for name in ("RepoNotFound", "RevisionNotFound", "GatedRepo", "down"):
    try:
        diffusion.load(load("p.toml", [f"model=some/{name}", "revision=v1"]), [])
    except ModelError as error:
        print(error)
"""


@real
def test_a_hub_that_has_it_not_or_is_down(tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text(TEXT, encoding="utf-8")
    hub = subprocess.Popen([sys.executable, "-c", HUB], stdout=subprocess.PIPE, text=True)
    try:
        assert hub.stdout is not None
        place = f"http://127.0.0.1:{int(hub.stdout.readline())}"
        home = {"HF_ENDPOINT": place, "HF_HOME": str(tmp_path / "hf"), "NO_PROXY": "127.0.0.1", "HF_HUB_OFFLINE": "0"}
        ask = [sys.executable, "-c", ASK]
        env = {**os.environ, **home}
        done = subprocess.run(ask, cwd=tmp_path, capture_output=True, text=True, check=True, env=env)
    finally:
        hub.kill()
        hub.communicate()
    lines = done.stdout.splitlines()
    assert lines[0].startswith("model: some/RepoNotFound: the hub has no such model, or not for you; nor is there")
    assert lines[1].startswith("revision: some/RevisionNotFound has no 'v1' on the hub; name a branch, tag or commit")
    assert lines[2].startswith("model: some/GatedRepo: its owner asks for consent on the hub first; give it there")
    assert lines[3].startswith("model: some/down: cannot be had from the hub (Server error '503 Service Unavailable'")
    assert lines[3].endswith("check network and name, or set model to a folder that holds it")
    assert len(lines) == 4
    assert done.stderr == ""


def test_without_the_extra_one_line_says_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name: None if name == "diffusers" else found(name))
    with pytest.raises(MissingExtraError, match=r"needs 'diffusers', .*; pip install 'leakdet_tf\[diffusion\]'"):
        CliRunner().invoke(command, ["p.toml", str(tmp_path)], catch_exceptions=False)


def test_asking_for_help_imports_nothing_heavy() -> None:
    script = (
        "import sys\nfrom click.testing import CliRunner\nfrom leakdet_tf.cli.synth_diffusion import command\n"
        "assert 'PROMPTS' in CliRunner().invoke(command, ['--help']).output\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'pydantic', 'numpy', 'tensorflow'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

"""Painting with a Hugging Face diffusers pipeline: the one file that knows diffusers and torch.

A model is code's equal in what it could do, so only data are read: weights from safetensors files, never from pickles,
and no Python of a model's own is run.
"""

from __future__ import annotations

import inspect
import json
import logging
import re
from collections.abc import Collection, Mapping
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from leakdet_tf.core.errors import MissingExtraError, ModelError
from leakdet_tf.core.files import sha256_bytes, sha256_file

if TYPE_CHECKING:  # they need pydantic, which require() has to miss first
    from leakdet_tf.config.diffusion import Diffusion
    from leakdet_tf.synth.diffusion.prompted import Painted
    from leakdet_tf.synth.diffusion.repaint import Place

PACKAGES = ("diffusers", "torch", "transformers", "accelerate", "safetensors", "huggingface_hub", "pydantic", "rich")
INDEX = "model_index.json"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_ELSEWHERE = "or set model to a folder that holds it"
# What the loaders of diffusers and transformers raise on files that are missing, damaged or do not fit together.
_LOADER_ERRORS = (OSError, ValueError, RuntimeError, LookupError, TypeError, AttributeError, ImportError)


def require() -> None:
    """Raise MissingExtraError, with the line to type, unless the packages of the extra are installed."""
    for name in PACKAGES:
        if util.find_spec(name) is None:
            raise MissingExtraError(
                f"painting needs '{name}', which is not installed",
                remedy="pip install 'leakdet_tf[diffusion]' (Python 3.11 or newer)",
            )


class DiffusersPainter:
    """A loaded pipeline that paints one picture at a time.

    Noise is drawn on the CPU from the picture's seed, so it is the same for a GPU. On one machine with the same
    versions and number of threads the pixels are the same too; between machines floating point differs.
    """

    def __init__(self, pipeline: Any, order: Diffusion, about: Mapping[str, Any]) -> None:
        self._pipeline = pipeline
        self._order = order
        self._about = dict(about)

    @property
    def about(self) -> Mapping[str, Any]:
        """Model, commit, hash of its weights, pipeline, scheduler, device, precision and versions."""
        return self._about

    def paint(self, text: str, seed: int, place: Place | None) -> Painted:
        """One picture of the order's size.

        Args:
            text: the prompt.
            seed: of the noise, below 2**63.
            place: what to paint over; None paints a whole picture.

        Raises:
            ModelError: the model answers NaN or another size, or the GPU's memory is too small.
        """
        import torch

        from leakdet_tf.synth.diffusion.prompted import Painted

        height, width = self._order.size
        asked: dict[str, Any] = {
            "prompt": text,
            "num_inference_steps": self._order.steps,
            "guidance_scale": self._order.guidance,
            "height": height,
            "width": width,
            "generator": torch.Generator("cpu").manual_seed(seed),
            "output_type": "np",
        }
        if self._order.negative:
            asked["negative_prompt"] = self._order.negative
        if place is not None and self._order.inpaint is not None:
            asked |= {"image": Image.fromarray(place.image), "mask_image": Image.fromarray(place.mask)}
            asked["strength"] = self._order.inpaint.strength
        try:
            answer = self._pipeline(**asked)
        except torch.OutOfMemoryError as error:
            raise ModelError(
                f"size {height} x {width}: the GPU's memory is too small",
                remedy='use a smaller size, dtype = "float16", or device = "cpu"',
            ) from error
        image = np.asarray(answer.images[0], dtype=np.float64)
        if image.shape != (height, width, 3):
            raise ModelError(
                f"size {height} x {width}: {self._order.model} painted {image.shape[0]} x {image.shape[1]} pixels",
                remedy="choose a size that the model can paint: multiples of 16, 32 or 64",
            )
        if not np.isfinite(image).all():
            raise ModelError(
                f"{self._order.model}: painted NaN in {self._about['dtype']}",
                remedy='set dtype = "bfloat16" or "float32"',
            )
        flags = getattr(answer, "nsfw_content_detected", None)
        pixels = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
        return Painted(pixels, None if flags is None else bool(flags[0]))


def load(order: Diffusion, texts: Collection[str]) -> DiffusersPainter:
    """Fetch (where it is a hub id) and load the model of a prompt file.

    Args:
        order: names model, mode, device and precision.
        texts: the prompts that it will be given; each must fit into what the model reads.

    Raises:
        MissingExtraError: diffusers or torch is not installed.
        ModelError: the model cannot be had, holds pickles or code, cannot do what the mode asks, or there is no GPU.
    """
    require()
    _quieten()
    import diffusers
    import torch

    device = order.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise ModelError("device: torch finds no CUDA GPU", remedy='use device = "auto" or "cpu"')
    dtype = order.dtype if order.dtype != "auto" else ("float32" if device == "cpu" else "float16")
    if device == "cpu" and dtype == "float16":
        raise ModelError("dtype: float16 needs a GPU", remedy='use "auto", "float32" or "bfloat16"')
    folder, commit = _folder_of(order)
    weights = _inspect(folder, order.model)
    kinds = {"text2image": diffusers.AutoPipelineForText2Image, "inpaint": diffusers.AutoPipelineForInpainting}
    try:
        pipeline = kinds[order.mode].from_pretrained(
            folder, dtype=getattr(torch, dtype), use_safetensors=True, local_files_only=True
        )
    except _LOADER_ERRORS as error:
        raise ModelError(
            f"{order.model}: cannot be loaded for {order.mode} ({_first_line(error)})",
            remedy="check that it is a whole diffusers model that can do that",
        ) from error
    _check(pipeline, order, texts)
    pipeline.set_progress_bar_config(disable=True)
    about = {
        "model": order.model,
        "revision": commit or order.revision,
        "weights_sha256": weights,
        "pipeline": type(pipeline).__name__,
        "scheduler": type(pipeline.scheduler).__name__,
        "device": device,
        "dtype": dtype,
        "versions": {name: metadata.version(name) for name in ("diffusers", "torch", "transformers")},
    }
    return DiffusersPainter(pipeline.to(device), order, about)


def _quieten() -> None:
    # Whatever they warn of in passing either stops us here or is no business of the user's.
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    for log in (of_diffusers, of_transformers):
        log.set_verbosity(logging.CRITICAL)  # what they log as an error they raise too
        log.disable_progress_bar()


def _folder_of(order: Diffusion) -> tuple[Path, str]:
    """The folder that holds the model, and its commit on the hub (empty for a folder of the user's own)."""
    local = Path(order.model).expanduser()
    if local.is_dir():
        if order.revision:
            raise ModelError(f"revision: {order.model} is a folder, which has none", remedy="leave it out")
        return local, ""
    if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", order.model, re.ASCII) is None:
        raise ModelError(
            f"model: {order.model}: no such folder", remedy="name a folder, or a hub id such as somebody/some-model"
        )
    import diffusers

    try:
        found = diffusers.DiffusionPipeline.download(order.model, revision=order.revision or None, use_safetensors=True)
    except _LOADER_ERRORS as error:
        raise _not_had(order, error) from error
    return Path(found), Path(found).name  # a snapshot's folder is named by its commit


def _not_had(order: Diffusion, error: Exception) -> ModelError:
    """What the user can do about a model that the hub did not give."""
    from huggingface_hub import errors

    cause = error.__cause__ or error  # diffusers says only that nothing is cached; why it looked there stands behind
    if isinstance(cause, errors.GatedRepoError):
        return ModelError(
            f"model: {order.model}: its owner asks for consent on the hub first",
            remedy=f"give it there and log in (hf auth login), {_ELSEWHERE}",
        )
    if isinstance(cause, errors.RevisionNotFoundError):
        return ModelError(
            f"revision: {order.model} has no '{order.revision}' on the hub",
            remedy="name a branch, tag or commit that it has",
        )
    if isinstance(cause, errors.RepositoryNotFoundError):
        return ModelError(
            f"model: {order.model}: the hub has no such model, or not for you; nor is there a folder of that name",
            remedy=f"check the name, {_ELSEWHERE}",
        )
    return ModelError(
        f"model: {order.model}: cannot be had from the hub ({_first_line(cause)})",
        remedy=f"check network and name, {_ELSEWHERE}",
    )


def _inspect(folder: Path, name: str) -> str:
    """Refuse a model that holds pickles alone or code of its own; returns a SHA-256 over the files of its components.

    Raises:
        ModelError: that, or the folder is no diffusers model.
    """
    import diffusers

    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ModelError(
            f"model: {folder / INDEX}: cannot be read ({reason})",
            remedy=f"name the folder of a diffusers model, which has {INDEX} in it",
        ) from error
    if not isinstance(index, dict) or not isinstance(index.get("_class_name"), str):
        raise ModelError(f"{name}: names a pipeline of its own", remedy="choose one of diffusers' own pipelines")
    found = [folder / INDEX]
    for component, kind in index.items():
        if not (isinstance(kind, list) and len(kind) == 2 and kind[0] is not None):
            continue
        if kind[0] not in ("diffusers", "transformers") and not hasattr(diffusers.pipelines, str(kind[0])):
            raise ModelError(f"{name}: its {component} is code of its own ({kind[0]})", remedy="choose another model")
        files = sorted(path for path in (folder / component).glob("*") if path.is_file())
        if not files:
            raise ModelError(f"{name}: its {component} is missing", remedy="fetch or copy the whole model")
        weights = [path for path in files if path.suffix == ".safetensors"]
        pickles = [path.name for path in files if path.suffix in _PICKLES]
        if pickles and not weights:
            raise ModelError(
                f"{name}: its {component} has only pickled weights ({pickles[0]}), which can run any code",
                remedy="choose a model or revision with safetensors files, or have its owner convert it",
            )
        found += [path for path in files if path.suffix in (".safetensors", ".json", ".txt", ".model")]
    lines = [f"{sha256_file(path)} {path.relative_to(folder).as_posix()}\n" for path in found]
    return sha256_bytes("".join(lines).encode())


def _check(pipeline: Any, order: Diffusion, texts: Collection[str]) -> None:
    """Refuse what a loaded pipeline would otherwise fail at later, or do in silence."""
    takes = inspect.signature(type(pipeline).__call__).parameters
    if order.negative and "negative_prompt" not in takes:
        raise ModelError(f"negative: {type(pipeline).__name__} takes none", remedy="leave it out")
    if order.mode == "text2image" and hasattr(pipeline, "unet") and hasattr(pipeline, "vae"):
        own, latent = pipeline.unet.config.in_channels, pipeline.vae.config.latent_channels
        if own != latent:
            raise ModelError(
                f"mode: {order.model} takes {own} channels, not {latent}: it was not made for text2image",
                remedy='set mode = "inpaint", or choose another model',
            )
    readers = [part for name, part in pipeline.components.items() if name.startswith("tokenizer") and part is not None]
    for text in [*texts, *([order.negative] if order.negative else [])]:
        tokens = [reader(text).input_ids for reader in readers]
        for reader, found in zip(readers, tokens, strict=True):
            if not set(found) - {*reader.all_special_ids, reader.unk_token_id}:
                raise ModelError(
                    f"{order.model}: its tokenizer knows no word of '{text[:40]}'",
                    remedy="fetch or copy the whole model, or use another language",
                )
        lengths = [(len(found), reader.model_max_length) for reader, found in zip(readers, tokens, strict=True)]
        if lengths and all(length > most for length, most in lengths):
            length, most = max(lengths, key=lambda pair: pair[1])
            raise ModelError(
                f"the prompt '{text[:40]}…' is {length} tokens long, and {order.model} reads {most}",
                remedy="shorten it: the end would be ignored",
            )


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__

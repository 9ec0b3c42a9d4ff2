"""The prompt file of ``leakdet-tf synth diffusion``: what a diffusion model is asked to paint.

Pictures that a model invents belong into training alone: a score over them says how well the inventor is known, not
how well leaks are found. So ``parts`` is ``["train"]`` unless the file says otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from leakdet_tf.config.fields import Count, Line, Pixels, Positive, Table, Text
from leakdet_tf.config.reading import Kind

Split = Literal["train", "val", "test"]
PUDDLE = "puddle"


def pieces(text: str) -> list[list[str]]:
    """A prompt as the alternatives of its parts: ``"a {red|blue} pipe"`` → ``[["a "], ["red", "blue"], [" pipe"]]``.

    Raises:
        ValueError: a brace has no partner, stands inside others, or offers no choice.
    """
    found: list[list[str]] = []
    rest = text
    while rest:
        plain, brace, after = rest.partition("{")
        if "}" in plain:
            raise ValueError(f"'}}' without '{{' in front of it, behind '{plain.partition('}')[0][-20:]}'")
        if plain:
            found.append([plain])
        if not brace:
            break
        inner, closed, rest = after.partition("}")
        if not closed:
            raise ValueError(f"'{{' is never closed, before '{after[:20]}'")
        if "{" in inner:
            raise ValueError(f"braces inside braces, in '{{{inner}}}'")
        if "|" not in inner:
            raise ValueError(f"'{{{inner}}}' offers no choice; write {{one|another}}")
        found.append(inner.split("|"))
    return found


def _wording(value: str) -> str:
    if all(not alternative.strip() for part in pieces(value) for alternative in part):
        raise ValueError("says nothing")
    return value


def _word(value: str) -> str:
    if ";" in value:
        raise ValueError("holds ';', which stands between labels in labels.csv")
    if value != value.strip():
        raise ValueError("begins or ends with a space")
    return value


class Inpaint(Table):
    """Where a leak is painted into photographs of dry places."""

    backgrounds: Text = Field(
        description="Folder of photographs; one is drawn for each picture and cut to the proportions of `size`."
    )
    masks: Text = Field(
        default=PUDDLE,
        description="`puddle`: a blob on the lower part of the picture, drawn again each time; or a folder with a mask "
        "for each photograph, of the same stem and size, whose pixels other than 0 are painted over.",
    )
    area: Annotated[list[Annotated[float, Field(ge=0.001, le=0.5)]], Field(min_length=2, max_length=2)] = Field(
        default=[0.02, 0.12], description="Smallest and largest puddle, as a share of the picture; part may be cut off."
    )
    strength: Annotated[float, Field(gt=0, le=1)] = Field(
        default=1.0, description="How much of what was there is given up; 1 paints from noise alone."
    )
    feather: Annotated[float, Field(ge=0, le=64)] = Field(
        default=4.0,
        description="Pixels over which the painted part fades in, inside its edge; outside, the photograph stays "
        "as it was, to the bit.",
    )

    @field_validator("area")
    @classmethod
    def _rising(cls, value: list[float]) -> list[float]:
        if value[0] > value[1]:
            raise ValueError("the smallest puddle is larger than the largest")
        return value


class Prompt(Table):
    """One thing to paint, and how often: `[[prompt]]`."""

    text: Annotated[Text, AfterValidator(_wording)] = Field(
        description="What the model is told; of `{a|b|c}` one alternative is drawn for each picture."
    )
    labels: list[Annotated[Text, AfterValidator(_word)]] = Field(
        description="What its pictures are called in `labels.csv`: one class, several, or `[]` for none."
    )
    counts: dict[Split, Positive] = Field(
        min_length=1, description="Pictures per split, such as `{train = 40}`; splits other than train need `parts`."
    )
    value: Annotated[int, Field(ge=0, le=255)] = Field(
        default=1, description="Value of the painted pixels in masks; inpainting only."
    )

    @field_validator("labels")
    @classmethod
    def _once(cls, value: list[str]) -> list[str]:
        if len(set(value)) != len(value):
            raise ValueError("a label stands twice")
        return value


class Diffusion(Table):
    """A whole prompt file."""

    model: Text = Field(
        description="Folder of a diffusers model, or its id on the Hugging Face hub (`somebody/some-model`). Mind the "
        "model's own licence."
    )
    revision: Line = Field(
        default="", description="Branch, tag or commit on the hub; a commit is the one that never changes."
    )
    mode: Literal["text2image", "inpaint"] = Field(
        default="text2image", description="Paint whole pictures, or leaks into photographs."
    )
    steps: Annotated[int, Field(ge=1, le=1000)] = Field(default=30, description="Denoising steps.")
    guidance: Annotated[float, Field(ge=0, le=50)] = Field(
        default=7.0, description="How strictly the prompt is followed (classifier-free guidance)."
    )
    size: Annotated[list[Pixels], Field(min_length=2, max_length=2)] = Field(
        description="Height and width in pixels, multiples of 8; best those that the model was trained on."
    )
    seed: Count = Field(default=0, description="Same seed, same bytes, on the same machine and versions.")
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        default="auto", description="Precision; `auto`: float16 on a GPU, float32 on a CPU."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="`auto`: a GPU where there is one.")
    negative: Line = Field(default="", description="What should not be in the pictures.")
    parts: Annotated[list[Split], Field(min_length=1)] = Field(
        default=["train"],
        description="Splits that may hold painted pictures. A score over painted val or test pictures says little.",
    )
    inpaint: Inpaint | None = Field(default=None, description="Photographs and masks; `inpaint` mode only.")
    prompt: list[Prompt] = Field(min_length=1, description="One table for each thing to paint.")

    @field_validator("size")
    @classmethod
    def _of_blocks(cls, value: list[int]) -> list[int]:
        if odd := [edge for edge in value if edge % 8]:
            raise ValueError(f"{odd[0]} is no multiple of 8")
        return value

    @model_validator(mode="after")
    def _agrees(self) -> Diffusion:
        if self.mode == "inpaint" and self.inpaint is None:
            raise ValueError("inpaint: missing; mode 'inpaint' needs [inpaint] with backgrounds")
        if self.mode == "text2image" and self.inpaint is not None:
            raise ValueError("inpaint: mode 'text2image' paints into no photographs; leave it out")
        for number, prompt in enumerate(self.prompt):
            if outside := [split for split in prompt.counts if split not in self.parts]:
                raise ValueError(f"parts: prompt.{number}.counts asks for {outside[0]}, which is not among them")
        return self


_FILE = Kind(
    Diffusion,
    page="experiments/paper/leak_diffusion.toml",
    example="steps=20",
    numbered="prompt.0.counts.train=4",
)


def load(path: str | Path, overrides: Sequence[str] = ()) -> Diffusion:
    """Read a prompt file and apply ``table.key=value`` overrides.

    Raises:
        ConfigError: one line with the file, the key, the value and what would be right.
    """
    return _FILE.read(path, overrides)

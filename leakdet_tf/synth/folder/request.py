"""What a rendered folder is asked to hold: generator, counts, size, seed, clips and options, checked in one place."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from leakdet_tf.core.errors import ConfigError, DataError, ModelError, did_you_mean
from leakdet_tf.core.registry import resolve

FORMAT = 2
SPLITS = ("train", "val", "test")
"""Names of the splits. A split's place in this list is part of the seeds of its pictures: do not reorder."""
FRAME, SHARE = "frame", "background_share"
"""Arguments that a generator is given for a picture where it has them; they are no options."""
_PORTIONS = {"test": 1, "val": 1, "train": 3}  # of the files, in turns: each split gets one of the first three


@dataclass(frozen=True)
class Job:
    """One picture to render.

    Attributes:
        split: the folder it goes to.
        name: its file's name there.
        seed: the scene's; all frames of a clip share it.
        clip: the clip's number in its split, from 0; without clips the picture's.
        frame: its place in the clip, from 0.
    """

    split: str
    name: str
    seed: int
    clip: int
    frame: int


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        generator: a registered name or ``package.module:function``.
        counts: pictures by split; a split left out has none.
        size: (height, width) in pixels.
        seed: 0 or more.
        options: keyword arguments of the generator besides seed, size and what :meth:`given` adds; fit for JSON.
        clip: consecutive frames of each scene; the last clip of a split may be shorter.

    Raises:
        DataError: a count, the seed or the length of clips is out of range, or a split is unknown.
        ConfigError: an option is not JSON.
    """

    generator: str
    counts: Mapping[str, int]
    size: tuple[int, int]
    seed: int
    options: Mapping[str, Any] = field(default_factory=dict)
    clip: int = 1

    def __post_init__(self) -> None:
        unknown = sorted(set(self.counts) - set(SPLITS))
        if unknown:
            raise DataError(f"counts: there is no split '{unknown[0]}'", remedy=f"choose from: {', '.join(SPLITS)}")
        for split, count in self.counts.items():
            if not count >= 0:
                raise DataError(f"counts: {split} is {count}", remedy="use 0 or more")
        if not self.seed >= 0:
            raise DataError(f"seed is {self.seed}", remedy="use 0 or more")
        if not self.clip >= 1:
            raise DataError(f"clip is {self.clip}", remedy="use 1 or more frames")
        try:
            same = json.loads(json.dumps(dict(self.options), allow_nan=False)) == self.options
        except (TypeError, ValueError):
            same = False
        if not same:
            raise ConfigError(
                f"options: {dict(self.options)!r} is not JSON", remedy="use text, numbers, lists and tables"
            )

    def as_json(self) -> dict[str, Any]:
        """What a manifest says about it, in the order in which differences are reported."""
        return {
            "format": FORMAT,
            "generator": self.generator,
            "seed": self.seed,
            "size": list(self.size),
            "clip": self.clip,
            "options": dict(self.options),
            "counts": {split: self.counts.get(split, 0) for split in SPLITS},
        }

    def jobs(self) -> list[Job]:
        """Every picture, in order; a name's stem is the generator's name, or its function's."""
        stem = self.generator.rpartition(":")[2]
        digits = max(2, len(str(self.clip - 1)))
        found = []
        for split in SPLITS:
            for index in range(self.counts.get(split, 0)):
                clip, frame = divmod(index, self.clip)
                name = (
                    f"{stem}_{clip + 1:05d}.png" if self.clip == 1 else f"{stem}_{clip + 1:05d}_f{frame:0{digits}d}.png"
                )
                found.append(Job(split, name, picture_seed(self.seed, split, clip), clip, frame))
        return found

    def given(self, job: Job) -> dict[str, Any]:
        """The generator's arguments besides seed, size and options: the frame of a clip, and its split's share of
        photographs or textures, ``[first, end, turns]``, where several splits are asked for: those whose place, counted
        in turns of so many, is in ``first..end - 1``.
        """
        found: dict[str, Any] = {FRAME: job.frame} if self.clip > 1 else {}
        asked = [split for split in _PORTIONS if self.counts.get(split)]
        if len(asked) > 1 and SHARE in inspect.signature(self.function()).parameters:
            first = sum(_PORTIONS[split] for split in asked[: asked.index(job.split)])
            turns = sum(_PORTIONS[split] for split in asked)
            found[SHARE] = [first, first + _PORTIONS[job.split], turns]
        return found

    def function(self) -> Callable[..., Any]:
        """The generator.

        Raises:
            ModelError: there is no such generator, or its arguments cannot be read.
            ConfigError: it has no such option, or clips are asked for and it has no ``frame``.
        """
        function = resolve("generator", self.generator)
        try:
            parameters = inspect.signature(function).parameters
        except (TypeError, ValueError) as error:  # callables of compiled code have no signature to read
            raise ModelError(f"generator '{self.generator}': {error}", remedy="name a Python function") from error
        if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            return function
        named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        own = [name for position, (name, one) in enumerate(parameters.items()) if position > 1 and one.kind in named]
        if self.clip > 1 and FRAME not in own:
            raise ConfigError(
                f"generator '{self.generator}': has no argument '{FRAME}', so it renders no clips",
                remedy="use clip = 1",
            )
        own = [name for name in own if name not in (FRAME, SHARE)]
        for key in self.options:
            if key not in own:
                raise ConfigError(
                    f"options.{key}: generator '{self.generator}' has no such option",
                    remedy="leave it out" if not own else did_you_mean(key, own),
                )
        return function


def picture_seed(seed: int, split: str, index: int) -> int:
    """The seed of picture (or clip) ``index``, from 0, of a split: below 2**53, which every JSON reader keeps exact."""
    words = np.random.SeedSequence([SPLITS.index(split), index, seed]).generate_state(1, np.uint64)
    return int(words[0]) >> 11

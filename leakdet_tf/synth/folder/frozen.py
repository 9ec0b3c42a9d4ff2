"""Pictures that everyone can render again: a list of them for the repository, and what of it comes out equal."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leakdet_tf.core.errors import DataError, LeakdetError
from leakdet_tf.core.files import write_text
from leakdet_tf.synth.folder.request import FORMAT, Request
from leakdet_tf.synth.folder.writer import MANIFEST, read_manifest

_DIGITS = 4
_HEX = 64  # letters of a SHA-256
_REMEDY = f"give a {MANIFEST}, or what --freeze wrote"


@dataclass(frozen=True)
class Likeness:
    """How many pictures of a folder are byte for byte those of a manifest, and which are not."""

    equal: int
    unequal: tuple[str, ...]

    def as_text(self) -> str:
        """One line: the count, and what a difference means."""
        total = self.equal + len(self.unequal)
        text = f"{self.equal} of {total} pictures are equal byte for byte"
        if not self.unequal:
            return text
        return (
            f"{text}; the other {len(self.unequal)}, from {self.unequal[0]} on, show the same scenes, "
            "but floating point (or Pillow) differs on this machine"
        )


def read_request(path: Path) -> Request:
    """What a manifest asks for, to be rendered again.

    Raises:
        DataError: the file is no manifest, one of another format than this version writes, or one whose pictures are
            not those that it asks for.
    """
    manifest = read_manifest(path, _REMEDY)
    if manifest.get("format") != FORMAT:
        raise DataError(
            f"{path}: its format is {manifest.get('format')!r}, not {FORMAT}",
            remedy="render with the version of leakdet_tf that wrote it",
        )
    try:
        height, width = manifest["size"]
        request = Request(
            generator=str(manifest["generator"]),
            counts={str(split): int(count) for split, count in manifest["counts"].items()},
            size=(int(height), int(width)),
            seed=int(manifest["seed"]),
            options=dict(manifest["options"]),
            clip=int(manifest["clip"]),
        )
        listed = [(picture["file"], picture["seed"], len(picture["sha256"])) for picture in manifest["pictures"]]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DataError(f"{path}: not a manifest of rendered pictures ({error!r})", remedy=_REMEDY) from error
    except LeakdetError as error:  # a count, seed or option that nothing can be rendered from
        raise DataError(f"{path}: {error.args[0]}", remedy=error.remedy) from error
    asked = sum(request.counts.values())
    jobs = request.jobs() if len(listed) == asked else []  # a damaged count may be any number
    if not jobs or listed != [(f"{job.split}/images/{job.name}", job.seed, _HEX) for job in jobs]:
        raise DataError(
            f"{path}: lists {len(listed)} pictures, and other ones than the {asked} that it asks for",
            remedy="take a manifest as it was written",
        )
    return request


def compare(root: Path, path: Path) -> Likeness:
    """Compare the pictures of a rendered folder with those of a manifest by their SHA-256.

    Raises:
        DataError: the two list other pictures or other seeds.
    """
    mine, theirs = read_manifest(root / MANIFEST)["pictures"], read_manifest(path)["pictures"]
    keys = ("file", "seed")
    if [[one[key] for key in keys] for one in mine] != [[one[key] for key in keys] for one in theirs]:
        raise DataError(
            f"{root}: its pictures are not those of {path}",
            remedy="render with the version of leakdet_tf that wrote it",
        )
    unequal = tuple(one["file"] for one, other in zip(mine, theirs, strict=True) if one["sha256"] != other["sha256"])
    return Likeness(len(mine) - len(unequal), unequal)


def freeze(root: Path, path: Path) -> None:
    """Write what was asked for ``root`` and every picture's seed, hash and parameters to ``path``, for a repository.

    It is the folder's manifest with a line for each picture and its numbers rounded to four digits: the seed, not
    they, is what a picture is rendered from.
    """
    manifest = read_manifest(root / MANIFEST)
    pictures = [
        json.dumps(_short({key: one[key] for key in ("file", "seed", "sha256", "parameters")}), ensure_ascii=False)
        for one in manifest.pop("pictures")
    ]
    head = json.dumps(manifest, indent=2, ensure_ascii=False)
    write_text(path, head[:-2] + ',\n  "pictures": [\n' + ",\n".join(pictures) + "\n  ]\n}\n")


def _short(value: Any) -> Any:
    """``value`` with every float rounded to few significant digits."""
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}")
    if isinstance(value, dict):
        return {key: _short(one) for key, one in value.items()}
    return [_short(one) for one in value] if isinstance(value, list) else value

"""A folder of painted pictures: made piece by piece, because one takes a minute, and there whole or not at all."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import shutil
import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from leakdet_tf.config.diffusion import Diffusion, pieces
from leakdet_tf.core.errors import DataError
from leakdet_tf.core.files import sha256_bytes, sha256_file, sync_folder, write_bytes, write_json, write_text
from leakdet_tf.core.version import __version__
from leakdet_tf.synth.diffusion.repaint import Place, Places, join
from leakdet_tf.synth.folder.request import FORMAT, SPLITS
from leakdet_tf.synth.folder.writer import MANIFEST, read_manifest

LABELS = "labels.csv"
ATTEMPTS = 4
"""How often a picture is painted again, with other noise, when the model's safety checker has blackened it."""


@dataclass(frozen=True, eq=False)
class Painted:
    """What a model painted: uint8 (H, W, 3), and whether its safety checker blackened it (None: it has none)."""

    image: NDArray[np.uint8]
    flagged: bool | None


class Painter(Protocol):
    """A model that is ready to paint; ``about`` is fit for JSON and holds ``weights_sha256``."""

    @property
    def about(self) -> Mapping[str, Any]:
        """What every picture's parameters say of the model."""

    def paint(self, text: str, seed: int, place: Place | None) -> Painted:
        """One picture; the same arguments give the same pixels."""


@dataclass(frozen=True)
class Ask:
    """One picture to paint.

    Attributes:
        split: the folder it goes to.
        name: its file's name there.
        prompt: its prompt's number, from 0.
        seed: of all that is drawn for it.
        text: the prompt as it was drawn.
    """

    split: str
    name: str
    prompt: int
    seed: int
    text: str


def picture_seed(seed: int, split: str, prompt: int, index: int) -> int:
    """The seed of a prompt's picture ``index``, both from 0: below 2**53, which every JSON reader keeps exact."""
    words = np.random.SeedSequence([SPLITS.index(split), prompt, index, seed]).generate_state(1, np.uint64)
    return int(words[0]) >> 11


def asks(order: Diffusion) -> list[Ask]:
    """Every picture of a prompt file, in order. More pictures or more prompts behind keep those that there were."""
    found = []
    for split in SPLITS:
        for number, prompt in enumerate(order.prompt):
            parts = pieces(prompt.text)
            for index in range({str(name): count for name, count in prompt.counts.items()}.get(split, 0)):
                seed = picture_seed(order.seed, split, number, index)
                rng = np.random.default_rng([seed, 0])
                text = "".join(part[int(rng.integers(len(part)))] for part in parts)
                name = f"diffusion_{number + 1:02d}_{index + 1:05d}.png"
                found.append(Ask(split, name, number, seed, " ".join(text.split())))
    return found


def paint_folder(root: Path, order: Diffusion, start: Callable[[], Painter]) -> Generator[int, None, None]:
    """Paint pictures into ``root``, unless it already holds just these.

    Written are ``root/<split>/images/diffusion_01_00001.png`` (8-bit RGB; the prompt's number, then the picture's),
    ``root/<split>/masks/`` with the same names where leaks are painted into photographs (8-bit, the prompt's value
    where it was painted, else 0), ``root/<split>/labels.csv`` (``file,label``) and ``root/manifest.json``. All of it
    goes to a hidden folder beside ``root``, picture by picture, whose inside is renamed after the last one, so
    ``root`` is never there in part. What an error, Ctrl-C or a power cut leaves there is taken up by the next call.

    A mask says which pixels were painted over, not where the model really put the leak.

    Args:
        root: the folder to make; missing parents are made too.
        order: what to paint.
        start: loads the model; called only when a picture is missing.

    Yields:
        How many pictures are done, after each. Take all of them: the folder is renamed after the last.

    Raises:
        DataError: ``root`` holds something else, another process paints it, what was begun there was asked for or
            painted otherwise, the safety checker blackens a prompt's pictures, or the disk cannot be written.
        LeakdetError: whatever ``start`` and the painter raise.
    """
    places = Places(order.inpaint) if order.inpaint is not None else None
    head, wanted = _as_json(order, places), asks(order)
    work = hidden(root)
    if _occupied(root):
        _require_same(root, head, wanted)
        if work.exists():
            with _writing(root), _alone(work, root):
                shutil.rmtree(work, ignore_errors=True)
        return
    with contextlib.ExitStack() as stack:
        with _writing(root):
            stack.enter_context(_alone(work, root))
            stack.callback(_remove_empty, work)
            if _occupied(root):
                _require_same(root, head, wanted)
                return
            _prepare(work, head, order)
        entries = {ask: entry for ask in wanted if (entry := _kept(work, ask)) is not None}
        painter: Painter | None = None
        for done, ask in enumerate(wanted, start=1):
            if ask not in entries:
                if painter is None:
                    painter = start()
                    _require_same_model(work, painter, list(entries.values()))
                entry, files = _painted(ask, order, places, painter)
                with _writing(root):
                    for name, data in files.items():
                        write_bytes(work / "out" / name, data)
                    write_json(_note(work, ask), entry)
                entries[ask] = entry
            yield done
        with _writing(root):
            _finish(work, root, head, order, entries)


def kept(root: Path) -> int:
    """How many pictures an unfinished call has left for the next one."""
    return sum(1 for _ in (hidden(root) / "notes").glob("[!.]*.json"))


def hidden(root: Path) -> Path:
    """The folder beside ``root`` that holds its pictures until all are painted."""
    target = root.resolve()
    return target.parent / f".{target.name}.painting"


def _as_json(order: Diffusion, places: Places | None) -> dict[str, Any]:
    # What a manifest says of the order, in which differences are reported. The device is no part of what is asked for.
    counts = {split: sum(ask.split == split for ask in asks(order)) for split in SPLITS}
    options = order.model_dump(mode="json", exclude={"seed", "size", "device"})
    if places is not None:
        options["inpaint"]["sha256"] = places.digest()
    head = {"format": FORMAT, "generator": "diffusion", "seed": order.seed, "size": list(order.size), "clip": 1}
    return {**head, "options": options, "counts": counts}


def _painted(
    ask: Ask, order: Diffusion, places: Places | None, painter: Painter
) -> tuple[dict[str, Any], dict[str, bytes]]:
    # The entry in the manifest, and the files' bytes by name.
    size = (order.size[0], order.size[1])
    place = None if places is None else places.draw(np.random.default_rng([ask.seed, 1]), size)
    for attempt in range(ATTEMPTS):
        words = np.random.SeedSequence([ask.seed, 2, attempt]).generate_state(1, np.uint64)
        noise = int(words[0]) >> 11
        painted = painter.paint(ask.text, noise, place)
        if not painted.flagged:
            break
    else:
        raise DataError(
            f"prompt.{ask.prompt}: the model's safety checker blackened {ATTEMPTS} pictures of '{ask.text}'",
            remedy="say it otherwise, or choose another seed or model",
        )
    prompt, image = order.prompt[ask.prompt], painted.image
    drawn: dict[str, Any] = {"prompt": ask.text, "negative": order.negative, "noise_seed": noise}
    drawn |= {"steps": order.steps, "guidance": order.guidance, "flagged": painted.flagged, "flagged_before": attempt}
    entry: dict[str, Any] = {"file": f"{ask.split}/images/{ask.name}"}
    files = {}
    if place is not None:
        assert order.inpaint is not None
        image = join(place, image, order.inpaint.feather)
        entry["mask"] = f"{ask.split}/masks/{ask.name}"
        files[entry["mask"]] = _png(np.where(place.mask != 0, np.uint8(prompt.value), np.uint8(0)))
        entry["mask_sha256"] = sha256_bytes(files[entry["mask"]])
        drawn |= {"strength": order.inpaint.strength, **place.parameters}
    files[entry["file"]] = _png(image)
    entry |= {"seed": ask.seed, "sha256": sha256_bytes(files[entry["file"]]), "labels": list(prompt.labels)}
    return entry | {"parameters": {**drawn, **painter.about}}, files


def _png(pixels: NDArray[np.uint8]) -> bytes:
    """uint8 (H, W) or (H, W, 3) → a grey or RGB PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def _prepare(work: Path, head: dict[str, Any], order: Diffusion) -> None:
    # Folders to write to; what a killed process was writing is removed, what it was asked for must be what we are.
    path = work / "request.json"
    if next((work / "notes").glob("[!.]*.json"), None):
        begun = read_manifest(path, f"delete {work} to start again")
        for key, value in head.items():
            if begun.get(key) != value:
                raise DataError(
                    f"{work}: was begun with another '{key}'{_difference(begun.get(key), value)}",
                    remedy="go on with that, or delete the folder to start again",
                )
    else:
        write_json(path, head)
    (work / "notes").mkdir(exist_ok=True)
    for split in {split for prompt in order.prompt for split in prompt.counts}:
        for kind in ("images", "masks") if order.inpaint else ("images",):
            (work / "out" / split / kind).mkdir(parents=True, exist_ok=True)
    for place, _, names in os.walk(work):
        for name in names:
            if name.startswith("."):
                Path(place, name).unlink()


def _remove_empty(work: Path) -> None:
    # Nothing is painted yet: nothing to go on from, and no reason to hold the next call to the same settings.
    if not next((work / "notes").glob("*.json"), None):
        shutil.rmtree(work, ignore_errors=True)


def _difference(before: Any, now: Any) -> str:
    # Which options differ, or the two values.
    if isinstance(before, dict) and isinstance(now, dict):
        return f" ({', '.join(key for key in {**before, **now} if before.get(key) != now.get(key))})"
    return f" ({before!r}, now {now!r})"


def _note(work: Path, ask: Ask) -> Path:
    return work / "notes" / f"{ask.split}_{Path(ask.name).stem}.json"


def _kept(work: Path, ask: Ask) -> dict[str, Any] | None:
    # The entry of a picture that is there as it was written; else it has to be painted again.
    note = _note(work, ask)
    if not note.exists():
        return None
    entry = read_manifest(note, f"delete {note}")
    for name, digest in (("file", "sha256"), ("mask", "mask_sha256")):
        path = work / "out" / entry[name] if name in entry else None
        if path is not None and not (path.is_file() and sha256_file(path) == entry.get(digest)):
            return None
    return entry


def _require_same_model(work: Path, painter: Painter, entries: Sequence[Mapping[str, Any]]) -> None:
    for entry in entries:
        if entry["parameters"]["weights_sha256"] != painter.about["weights_sha256"]:
            raise DataError(
                f"{work}: {entry['file']} was painted with other weights than the model has now",
                remedy="give the commit as revision to get them back, or delete the folder to start again",
            )


def _finish(
    work: Path, root: Path, head: dict[str, Any], order: Diffusion, entries: Mapping[Ask, dict[str, Any]]
) -> None:
    out = work / "out"
    pictures = [entries[ask] for ask in asks(order)]
    for split in {ask.split for ask in entries}:
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(("file", "label"))
        for entry in pictures:
            if entry["file"].startswith(f"{split}/"):
                table.writerow((entry["file"].removeprefix(f"{split}/"), ";".join(entry["labels"])))
        write_text(out / split / LABELS, text.getvalue())
    classes = list(dict.fromkeys(label for prompt in order.prompt for label in prompt.labels))
    about = {"package_version": __version__, "classes": classes, "pictures": pictures}
    write_json(out / MANIFEST, {**head, **about})
    out.rename(root.resolve())
    sync_folder(work.parent)
    shutil.rmtree(work, ignore_errors=True)  # what stays is removed by the next call


def _occupied(root: Path) -> bool:
    """Whether something stands at ``root`` that a rename would not replace: a file, or a folder that holds any."""
    return root.exists() and not (root.is_dir() and next(root.iterdir(), None) is None)


def _require_same(root: Path, head: dict[str, Any], wanted: Sequence[Ask]) -> None:
    """Raise DataError unless ``root`` is a finished folder that holds just what is asked for."""
    path = root / MANIFEST
    if not path.is_file():
        raise DataError(f"{root}: holds files that were not painted here", remedy="name another folder")
    remedy = f"delete {root} to paint it again, or name another folder"
    manifest = read_manifest(path, remedy)
    for key, value in head.items():
        if manifest.get(key) != value:
            raise DataError(f"{path}: has another '{key}'{_difference(manifest.get(key), value)}", remedy=remedy)
    kinds = ("images", "masks") if head["options"]["mode"] == "inpaint" else ("images",)
    files = [root / ask.split / kind / ask.name for ask in wanted for kind in kinds]
    for file in [*files, *(root / split / LABELS for split in sorted({ask.split for ask in wanted}))]:
        if not file.is_file():
            raise DataError(f"{file}: missing, though {path} counts it", remedy=remedy)


@contextlib.contextmanager
def _writing(root: Path) -> Iterator[None]:
    """Say what to do when the disk cannot be written."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{root}: cannot write the pictures ({error.strerror or error})",
            remedy="free some space or fix the permissions there; what is painted is kept, and the same call goes on",
        ) from error


@contextlib.contextmanager
def _alone(work: Path, root: Path) -> Iterator[None]:
    """Hold ``work``, made if need be, against other processes; the system lets go of it when this one ends."""
    work.mkdir(parents=True, exist_ok=True)
    path = work / "lock"
    busy = DataError(f"{root}: another process is painting it", remedy="wait for it, or name another folder")
    with path.open("a") as file:
        try:
            if sys.platform == "win32":
                import msvcrt

                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            raise busy from error
        if not (path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno()))):
            raise busy  # the other one has just finished, and removed what we have locked
        yield

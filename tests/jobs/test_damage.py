"""A run whose files were damaged goes on after its newest whole checkpoint, and ends as if nothing had happened."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from leakdet_tf.core.contract import Contract
from leakdet_tf.core.errors import TrainingError
from leakdet_tf.jobs import fit as room
from leakdet_tf.jobs.run.resume import is_finished
from leakdet_tf.training.checkpoint import SUMS, newest

EXPERIMENT = str(Path(__file__).parents[2] / "experiments" / "gas_unet.toml")
CHECKPOINT = ("state.json", "weights.npz", "optimizer.npz", SUMS)


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def bit(data: bytes) -> bytes:
    changed = bytearray(data)
    changed[len(data) // 3] ^= 4
    return bytes(changed)


def empty(data: bytes) -> bytes:
    return b""


def absent(data: bytes) -> None:
    return None


DAMAGES = (cut, bit, empty, absent)
Damage = Callable[[bytes], bytes | None]


def damaged(path: Path, damage: Damage) -> None:
    data = damage(path.read_bytes())
    if data is None:
        path.unlink()
    else:
        path.write_bytes(data)


def fitted(overrides: list[str], lines: list[str], *, resume: Path | None = None, until: int = 0) -> Path:
    """A run's folder; ``until`` ends it by SIGTERM after that epoch."""

    def log(line: str) -> None:
        lines.append(line)
        if line.startswith(f"epoch {until}/"):
            os.kill(os.getpid(), signal.SIGTERM)

    return room.fit(EXPERIMENT, overrides, log=log, resume=None if resume is None else str(resume)).folder


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Overrides for a run of seconds, without its figures and report."""
    folder = tmp_path_factory.mktemp("small")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        patch.setattr(room, "_draw", lambda *_: None)
        patch.setattr(room, "_conclude", lambda run: room.Fitted(run.folder, False, []))
        from few_layers import OVERRIDES

        yield [*OVERRIDES, f"data.root={folder / 'data'}", f"runs={folder / 'runs'}", "train.epochs=3"]


@pytest.fixture(scope="module")
def whole(small: list[str]) -> Path:
    """A run that nothing stopped."""
    return fitted(small, [])


@pytest.fixture(scope="module")
def ended(small: list[str], whole: Path) -> Path:
    """The same, ended by SIGTERM after its second epoch, which is its best."""
    folder = fitted(small, [], until=2)
    start = newest(folder / "checkpoints", log=pytest.fail)
    assert start is not None
    assert (start.state.epoch, start.state.best_epoch) == (2, 2)
    return folder


def same(one: Path, other: Path) -> None:
    served = [Contract.load(run / "contract.json").weights_sha256 for run in (one, other)]
    assert served[0] == served[1]
    assert (one / "history.csv").read_bytes() == (other / "history.csv").read_bytes()
    last = [newest(run / "checkpoints", log=pytest.fail) for run in (one, other)]
    assert last[0] is not None and last[1] is not None
    assert last[0].state == last[1].state
    arrays = [[a.tobytes() for a in (*end.weights, *end.optimizer)] for end in last if end]
    assert arrays[0] == arrays[1]


def survives(file: str, damage: Damage, ended: Path, whole: Path, small: list[str], place: Path) -> None:
    copy = Path(shutil.copytree(ended, place / "run"))
    of_checkpoint = file in CHECKPOINT
    damaged(copy / "checkpoints" / ("epoch-0002" if of_checkpoint else ".") / file, damage)
    lines: list[str] = []
    fitted(small, lines, resume=copy)
    assert any(line.startswith("checkpoint epoch-0002: ") for line in lines) == of_checkpoint
    again = "; epochs up to 2 were done too, and are repeated" if of_checkpoint else ""
    count = "1 epoch" if of_checkpoint else "2 epochs"
    assert f"resumed from checkpoint epoch-000{2 - of_checkpoint}: {count} done{again}" in lines
    fixed = [line for line in lines if line.startswith("best.keras was not that of epoch ")]
    assert bool(fixed) == (of_checkpoint or file == "best.keras"), lines
    same(copy, whole)


@pytest.mark.parametrize(
    ("file", "damage"),
    [*zip(CHECKPOINT, DAMAGES, strict=True), ("best.keras", bit), ("best.keras", absent), ("last.keras", cut)],
)
def test_one_damaged_file_changes_nothing_in_the_end(
    file: str, damage: Damage, ended: Path, whole: Path, small: list[str], tmp_path: Path
) -> None:
    survives(file, damage, ended, whole, small, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", [*CHECKPOINT, "best.keras", "last.keras"])
def test_every_damage_of_every_file(
    file: str, damage: Damage, ended: Path, whole: Path, small: list[str], tmp_path: Path
) -> None:
    survives(file, damage, ended, whole, small, tmp_path)


def test_a_best_model_that_is_lost_for_good_is_told_before_anything_is_trained(
    ended: Path, small: list[str], tmp_path: Path
) -> None:
    """Both the file and its epoch's checkpoint: of the first epoch, when the second was not better."""
    import json

    from leakdet_tf.core.files import sha256_file

    copy = Path(shutil.copytree(ended, tmp_path / "run"))
    place = copy / "checkpoints" / "epoch-0002"
    said = json.loads((place / "state.json").read_text())
    said["best_epoch"] = 1
    (place / "state.json").write_text(json.dumps(said))
    names = ("state.json", "weights.npz", "optimizer.npz")
    (place / SUMS).write_text("".join(f"{sha256_file(place / name)}  {name}\n" for name in names))
    damaged(copy / "checkpoints" / "best.keras", bit)
    damaged(copy / "checkpoints" / "epoch-0001" / "weights.npz", bit)
    lines: list[str] = []
    with pytest.raises(TrainingError, match=r"epoch-0002: the model of epoch 1, the best, is lost") as caught:
        fitted(small, lines, resume=copy)
    assert str(caught.value).isprintable()
    assert not [line for line in lines if line.startswith("epoch ")]
    assert not is_finished(copy)

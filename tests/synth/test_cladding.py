"""Textures of the user's own: in perspective, without seams or aliasing, divided by split, named in the manifest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from PIL import Image

from leakdet_tf.cli.synth import command
from leakdet_tf.core.errors import DataError, ImageError
from leakdet_tf.synth.folder.request import Request
from leakdet_tf.synth.folder.writer import render_folder
from leakdet_tf.synth.leak import generator as leak
from leakdet_tf.synth.leak import litter
from leakdet_tf.synth.leak.cladding import Cladding, asked_for
from leakdet_tf.synth.leak.room import FLOOR, WALL, Room, View, trace
from leakdet_tf.synth.scenery.photos import draw_picture, shared

SIZE = (96, 96)
VIEW = View("corner", 1.5, 0.5, 0.0, 0.0, 1.2, 0.0, 3.0, None)


def painted(folder: Path, name: str, pixels: NDArray[np.uint8]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(folder / name)
    return folder


def board(cells: int = 8, side: int = 16) -> NDArray[np.uint8]:
    """A chessboard, white in its upper left corner."""
    light = np.add.outer(np.arange(cells), np.arange(cells)) % 2 == 0
    whole = np.kron(light, np.ones((side, side)))
    return np.repeat((whole * 255).astype(np.uint8)[..., np.newaxis], 3, axis=2)


def clad(folder: Path, width_m: float = 2.0, quarters: int = 0) -> Cladding:
    return Cladding(
        draw_picture(np.random.default_rng(0), "textures", str(folder)), width_m, 0.0, 0.0, quarters, 0.1, 0.8
    )


def color_of(texture: Cladding, room: Room, part: int) -> NDArray[np.float32]:
    skin = texture.paint(room, part, np.s_[:, :])
    assert (skin.porous, float(skin.gloss.min())) == (0.8, np.float32(0.1))
    return skin.color


def seen_at(point: tuple[float, float, float], side: int) -> tuple[int, int]:
    """Row and column of a point of the room, by the rule of a pinhole."""
    x, y, z = point[0], point[1], point[2] - VIEW.height
    sin, cos = np.sin(VIEW.pitch), np.cos(VIEW.pitch)
    ahead, down = y * cos - z * sin, -z * cos - y * sin
    scale = VIEW.focal * side / ahead
    return int(side / 2 + down * scale), int(side / 2 + x * scale)


def is_light(across: float, up: float) -> bool:
    """Whether a chessboard 2 m wide is white there, as it is mirrored beyond its edges."""
    cells = [int((4.0 - abs(place) if abs(place) > 2.0 else abs(place)) / 0.25) for place in (across, up)]
    return sum(cells) % 2 == 1


@pytest.mark.parametrize("quarters", [0, 1])
def test_a_chessboard_lies_on_the_floor_and_stands_on_the_wall_in_perspective(tmp_path: Path, quarters: int) -> None:
    """Its lower left field is dark, and it is mirrored, not repeated."""
    texture, side = clad(painted(tmp_path, "board.png", board()), quarters=quarters), 512
    room = trace(VIEW, (side, side))
    floor, wall = color_of(texture, room, FLOOR), color_of(texture, room, WALL)
    checked = 0
    for x in np.arange(-4, 4) * 0.25 + 0.125:
        for along in np.arange(0, 11) * 0.25 + 0.125:
            for color, part, point in ((floor, FLOOR, (x, along, 0.0)), (wall, WALL, (x, 3.0, along))):
                place = seen_at(point, side)
                if not all(0 <= axis < side for axis in place):
                    continue
                assert room.part[place] == part
                light = is_light(along, -x) if quarters else is_light(x, along)
                assert color[place].mean() == pytest.approx(float(light), abs=0.05)
                checked += 1
    assert checked > 40


def test_no_seam_shows_where_pictures_meet(tmp_path: Path) -> None:
    """A ramp from black to white comes back down instead of breaking off."""
    ramp = np.repeat(np.linspace(0, 255, 64, dtype=np.uint8)[np.newaxis, :, np.newaxis], 64, axis=0).repeat(3, axis=2)
    wall = View("wall", 1.5, 0.0, 0.0, 0.0, 1.2, 0.0, 2.0, None)
    color = color_of(clad(painted(tmp_path, "ramp.png", ramp), 0.5), trace(wall, SIZE), WALL)[..., 0]
    assert np.ptp(color) > 0.9
    assert np.abs(np.diff(color, axis=1)).max() < 0.15


def test_what_is_finer_than_a_pixel_turns_grey(tmp_path: Path) -> None:
    fine = color_of(clad(painted(tmp_path, "b.png", board(64, 4)), 0.2), trace(VIEW, SIZE), FLOOR)
    assert np.ptp(fine) < 0.1
    assert fine.mean() == pytest.approx(0.5, abs=0.03)


def test_a_texture_seen_aslant_is_filtered_along_and_stays_sharp_across(tmp_path: Path) -> None:
    """Stripes that run away from the camera, and the same that lie across, where a pixel is seven times longer than
    wide: a filter as wide as long would take the first away, one as long as wide would let the second flicker."""
    room = trace(View("floor", 0.6, 0.15, 0.0, 0.0, 1.2, 0.0, None, None), (192, 192))
    far = int(np.argmin(np.abs(room.v[:, 96] - 4.0)))
    stripes = np.repeat(board(8, 16)[:1], 128, axis=0)
    away = color_of(clad(painted(tmp_path / "away", "a.png", stripes), 0.48), room, FLOOR)
    assert np.ptp(away[far]) > 0.9
    turned = painted(tmp_path / "lying", "a.png", np.ascontiguousarray(stripes.swapaxes(0, 1)))
    lying = color_of(clad(turned, 0.48), room, FLOOR)
    assert np.ptp(lying[far - 3 : far + 4, 96]) < 0.6


def test_a_pixels_light_and_wetness_lie_on_a_texture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(litter, "draw_tags", lambda rng: ["shadow"])
    grey = np.full((32, 32, 3), 160, np.uint8)
    options = {"textures": {"floor": str(painted(tmp_path, "grey.png", grey))}, "no_leak": 0.0}
    darker = 0
    for seed in range(6):
        wet, dry = leak.compose(seed, SIZE, **options), leak.compose(seed, SIZE, leak=False, **options)
        if dry.parameters.get("floor") != "texture":
            continue
        assert dry.radiance.std() > 0.01  # shaded and shadowed
        assert np.array_equal(wet.radiance[~wet.touched], dry.radiance[~wet.touched])
        darker += bool(np.median((wet.radiance - dry.radiance)[wet.cover > 0.9]) < 0.0)
    assert darker >= 3


@pytest.fixture
def textures(tmp_path: Path) -> Path:
    """Six for floors and six for walls."""
    rng = np.random.default_rng(0)
    for part in ("floor", "wall"):
        for number in range(6):
            painted(tmp_path / "own" / part, f"{part}{number}.png", rng.integers(60, 200, (20, 30, 3), np.uint8))
    return tmp_path / "own"


def test_same_seed_same_picture_and_what_was_used_is_named(textures: Path) -> None:
    options: dict[str, Any] = {"textures": str(textures), "texture_m": {"floor": 0.7, "wall": 1.4}}
    first = [leak.render(seed, SIZE, **options) for seed in range(12)]
    for seed, one in enumerate(first):
        again, plain = leak.render(seed, SIZE, **options), leak.render(seed, SIZE)
        assert (one.image.tobytes(), one.parameters) == (again.image.tobytes(), again.parameters)
        assert one.image.tobytes() != plain.image.tobytes()
        told = {"floor", "wall", "floor_texture_file", "wall_texture_file", "has_leak", "shape", "leak_fraction"}
        told |= {"floor_textures_sha256", "wall_textures_sha256"}
        others = set(one.parameters) - told - {"liquid", "liquid_kind", "sheen", "ripple"}
        assert {key: one.parameters[key] for key in others} == {key: plain.parameters[key] for key in others}
        for part in ("floor", "wall"):
            assert (part in one.parameters) is (f"{part}_texture_file" in one.parameters)
            assert str(one.parameters.get(f"{part}_texture_file", part)).startswith(part)
    assert len({str(one.parameters.get("floor_texture_file")) for one in first}) > 3
    painted(textures / "floor", "floor0.png", np.zeros((20, 30, 3), np.uint8))
    changed = leak.render(0, SIZE, **options).parameters
    assert changed["floor_textures_sha256"] != first[0].parameters["floor_textures_sha256"]
    assert changed.get("wall_textures_sha256") == first[0].parameters.get("wall_textures_sha256")


def test_no_texture_lies_behind_two_splits(textures: Path, tmp_path: Path) -> None:
    request = Request("leak", {"train": 12, "val": 8, "test": 8}, (40, 40), 5, {"textures": str(textures)})
    for name, workers in (("one", 1), ("two", 2)):
        list(render_folder(tmp_path / name, request, workers=workers))
    pictures, other = (json.loads((tmp_path / n / "manifest.json").read_text())["pictures"] for n in ("one", "two"))
    assert pictures == other
    used: dict[str, set[str]] = {}
    for picture in pictures:
        split, about = picture["file"].partition("/")[0], picture["parameters"]
        used.setdefault(split, set()).update(value for key, value in about.items() if key.endswith("_texture_file"))
        assert about["background_share"] == {"test": [0, 1, 5], "val": [1, 2, 5], "train": [2, 5, 5]}[split]
    assert all(used.values())
    assert not used["train"] & used["val"] | used["train"] & used["test"] | used["val"] & used["test"]


def test_textures_of_several_splits_are_told_each_picture_once() -> None:
    both = {
        "floor_texture_file": "a",
        "floor_textures_sha256": "1",
        "wall_texture_file": "a",
        "wall_textures_sha256": "1",
    }
    wall = {"wall_texture_file": "b", "wall_textures_sha256": "1"}
    assert shared([("train", both), ("train", wall)]) == ""
    told = "1 of 2 textures, such as a, are behind 1 pictures of train, 1 pictures of val"
    assert shared([("train", both), ("train", wall), ("val", dict(list(both.items())[2:]))]) == told
    photo = {"background_file": "a", "backgrounds_sha256": "1"}
    assert shared([(split, one) for split in ("train", "val") for one in (photo, wall)]).count(" are behind ") == 2


def test_the_command_takes_textures_and_warns_of_too_few(tmp_path: Path) -> None:
    painted(tmp_path / "own" / "floor", "a.png", board())
    words = ["leak", str(tmp_path / "made"), "--train", "3", "--val", "3", "--test", "0", "--size", "40", "40"]
    words += ["--option", f"textures={tmp_path / 'own'}", "--option", "texture_m=0.5"]
    done = CliRunner().invoke(command, words)
    assert done.exit_code == 0, done.output
    assert "warning: 1 of 1 textures, such as a.png, are behind" in done.output
    assert "give at least as many files as splits" in done.output


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ({"textures": "nowhere"}, "textures: 'nowhere' is no folder"),
        ({"textures": 3}, "textures: 3 is no folder"),
        ({"textures": "{own}", "backgrounds": "{own}"}, "no room to cover on photographs"),
        ({"textures": "{own}/floor"}, r"floor0\.png: is in neither .*floor.floor nor"),
        ({"textures": {"ceiling": "{own}/floor"}}, "no part 'ceiling'"),
        ({"textures": {"floor": "{own}/none"}}, r"textures\.floor: '.*none' is no folder"),
        ({"textures": {"floor": "{own}/empty"}}, "empty: holds no picture"),
        ({"textures": {"floor": "{own}", "wall": "{own}/wall"}}, "lie in one another"),
        ({"textures": "{own}", "texture_m": 0}, "texture_m is 0"),
        ({"textures": "{own}", "texture_m": 101.0}, "up to 100"),
        ({"textures": "{own}", "texture_m": True}, "texture_m is True"),
        ({"textures": "{own}", "texture_m": {"wall": float("nan")}}, "texture_m is nan"),
        ({"textures": {"floor": "{own}/floor"}, "texture_m": {"wall": 1.0}}, "no textures of 'wall'"),
        ({"texture_m": 0.5}, "texture_m is 0.5 without textures"),
        ({"textures": "{own}", "texture_m": "wide"}, "texture_m is 'wide'"),
    ],
)
def test_bad_options_are_refused_in_one_line(textures: Path, options: dict[str, Any], shown: str) -> None:
    (textures / "empty").mkdir()
    filled = json.loads(json.dumps(options).replace("{own}", str(textures)))
    with pytest.raises(DataError, match=shown) as caught:
        leak.render(1, SIZE, **filled)
    assert caught.value.remedy
    assert "\n" not in str(caught.value)


def test_a_damaged_texture_is_named(textures: Path) -> None:
    for path in textures.rglob("*.png"):
        path.write_bytes(b"not a picture")
    with pytest.raises(ImageError, match=r"(floor|wall)\d\.png: not a JPEG"):
        leak.render(0, SIZE, textures=str(textures))


def test_a_part_without_textures_stays_rendered(textures: Path) -> None:
    assert set(asked_for({"wall": str(textures / "wall")}, 1.0, None)) == {WALL}
    same = asked_for({"floor": str(textures), "wall": str(textures)}, 2, None)
    assert {part: one.width_m for part, one in same.items()} == {FLOOR: 2.0, WALL: 2.0}
    found = [leak.render(seed, SIZE, textures={"wall": str(textures / "wall")}).parameters for seed in range(12)]
    assert {one.get("wall", "texture") for one in found} == {"texture"}
    assert "texture" not in {one.get("floor") for one in found}

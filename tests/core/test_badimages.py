"""The folder of malformed pictures that other projects collected: no crash, no hang, no bomb, no wrong size."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

LIMIT_BYTES = 4 << 30
LIMIT_SECONDS = 10
BOMB_KIB = 64 << 10
OTHER_FORMATS = (".gif", ".webp", ".pgm", ".tga", ".ico", ".sgi", ".dds", ".psd", ".j2k", ".jp2")

# One process reads them all and says after each file what came of it, so that a death names its file.
_CHILD = """
import json, pathlib, resource, sys, time, warnings
from PIL import Image
from leakdet_tf.core.errors import ImageError
from leakdet_tf.core.images import decode, decode_mask
warnings.simplefilter("ignore")
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]),) * 2)


def declared(path):
    try:
        with Image.open(path) as picture:
            turned = picture.format != "TIFF" and picture.getexif().get(0x0112) in (5, 6, 7, 8)
            return picture.format, list(picture.size if turned else picture.size[::-1])
    except Exception:
        return None, None


for path in sys.stdin.read().splitlines():
    print(json.dumps({"begins": path}), flush=True)
    found = {"path": path}
    for read in (decode, decode_mask):
        start, peak = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            found[read.__name__] = read(pathlib.Path(path)).shape
        except ImageError as error:
            found[read.__name__] = str(error)
        except Exception as error:
            found[read.__name__] = {"leaked": repr(error)}
        found["seconds"] = max(found.get("seconds", 0), time.perf_counter() - start)
        found["kib"] = max(found.get("kib", 0), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak)
    found["format"], found["declared"] = declared(path)
    print(json.dumps(found), flush=True)
"""

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits memory as Linux does"),
]


@pytest.fixture(scope="module")
def results() -> list[dict[str, Any]]:
    """What came of each file: shape or error of both readers, seconds, growth of the peak memory."""
    named = os.environ.get("LEAKDET_SHARED", "")
    folder = Path(named) / "oracles" / "badimages"
    if not named or not folder.is_dir():
        pytest.skip("needs oracles/badimages in the folder that LEAKDET_SHARED names")
    # Bombs first: later on the peak of the ordinary files would hide theirs.
    paths = [path for part in ("bomb", "bad", "valid") for path in sorted((folder / part).iterdir())]
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, str(LIMIT_BYTES)],
        input="\n".join(map(str, paths)),
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS * 20,
        check=False,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"the process died at {lines[-1:]}: {done.stderr[-2000:]}"
    found = [{**line, "part": Path(line["path"]).parent.name} for line in lines if "path" in line]
    assert [line["path"] for line in found] == [str(path) for path in paths]
    for part in ("bad", "valid", "bomb"):  # shown by pytest -s
        rows = [line for line in found if line["part"] == part]
        decoded = sum(isinstance(line["decode"], list) for line in rows)
        sys.stdout.write(f"{part}: {len(rows)} files, {decoded} decoded, {len(rows) - decoded} refused\n")
    slowest = max(found, key=lambda line: float(line["seconds"]))
    took = time.perf_counter() - started
    sys.stdout.write(f"slowest {slowest['seconds']:.2f} s ({Path(slowest['path']).name}); {took:.1f} s in all\n")
    return found


def test_every_file_is_a_picture_or_an_error_that_names_it(results: list[dict[str, Any]]) -> None:
    for found in results:
        for reader in ("decode", "decode_mask"):
            answer = found[reader]
            assert isinstance(answer, str | list), found
            if isinstance(answer, str):
                assert Path(found["path"]).name in answer
                assert answer.isprintable(), found


def test_every_picture_has_the_size_that_its_file_declares(results: list[dict[str, Any]]) -> None:
    decoded = [found for found in results if isinstance(found["decode"], list)]
    assert decoded
    for found in decoded:
        assert found["decode"][:2] == found["declared"], found
        assert found["decode"][2] in (1, 3)
        if isinstance(found["decode_mask"], list):
            assert found["decode_mask"] == found["declared"], found


def test_none_hangs(results: list[dict[str, Any]]) -> None:
    for found in results:
        assert found["seconds"] < LIMIT_SECONDS, found


def test_valid_pictures_of_the_four_formats_decode(results: list[dict[str, Any]]) -> None:
    valid = [found for found in results if found["part"] == "valid"]
    assert len(valid) >= 40
    for found in valid:
        if found["path"].endswith(OTHER_FORMATS):
            assert "not a JPEG, PNG, BMP, TIFF picture" in found["decode"]
        else:
            assert isinstance(found["decode"], list), found


def test_bombs_are_refused_and_take_no_memory(results: list[dict[str, Any]]) -> None:
    bombs = [found for found in results if found["part"] == "bomb"]
    assert len(bombs) >= 7
    for found in bombs:
        assert isinstance(found["decode"], str), found
        assert found["kib"] < BOMB_KIB, found
        if not found["path"].endswith(OTHER_FORMATS):
            assert "80000000" in found["decode"]

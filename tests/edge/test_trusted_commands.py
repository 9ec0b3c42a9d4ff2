"""``predict`` and ``benchmark`` with ``--trusted``: what the key has not signed is one line, and status 2."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from PIL import Image

from leakdet_tf.cli import main
from leakdet_tf.edge import benchmark as edge
from leakdet_tf.edge import keys, signing
from leakdet_tf.jobs import benchmark as job


def private(number: int) -> bytes:
    key = Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.fixture
def key(tmp_path: Path) -> str:
    """The public key that is trusted."""
    public = keys.private_key(private(1)).public_key()
    (tmp_path / "maker.pub").write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return str(tmp_path / "maker.pub")


@pytest.fixture
def picture(tmp_path: Path) -> str:
    Image.fromarray(np.full((40, 60, 3), 90, np.uint8)).save(tmp_path / "frame.png")
    return str(tmp_path / "frame.png")


def line_of(capsys: pytest.CaptureFixture[str]) -> str:
    (line,) = [one for one in capsys.readouterr().err.splitlines() if not one.startswith("round ")]
    return line


WRONG = {
    "unsigned": (lambda folder: None, "not signed (certificate.json"),
    "foreign": (lambda folder: signing.sign(folder, private(2)), "not signed by the trusted key"),
}


@pytest.mark.parametrize(("act", "says"), WRONG.values(), ids=WRONG.keys())
@pytest.mark.parametrize("name", ["predict", "benchmark"])
def test_what_the_key_has_not_signed_is_refused(
    own_small: Path,
    key: str,
    picture: str,
    tmp_path: Path,
    act: Callable[[Path], None],
    says: str,
    name: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    act(own_small)
    out = tmp_path / "out"
    rest = [picture, "--out", str(out)] if name == "predict" else ["--threads", "1", "--runs", "1"]
    assert main([name, str(own_small), *rest, "--trusted", key]) == 2
    assert says in line_of(capsys)
    assert not out.exists()


def test_predict_answers_for_what_it_has_signed(own_small: Path, key: str, picture: str, tmp_path: Path) -> None:
    signing.sign(own_small, private(1))
    assert main(["predict", str(own_small), picture, "--out", str(tmp_path / "out"), "--trusted", key]) == 0
    (row,) = csv.DictReader((tmp_path / "out" / "predictions.csv").read_text().splitlines())
    assert row["picture"] == picture


def test_predict_takes_no_run_then_and_says_so(
    key: str, picture: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "experiment.toml").write_text('name = "gas"\n')
    assert main(["predict", str(run), picture, "--out", str(tmp_path / "out"), "--trusted", key]) == 2
    assert f"{run}: a run, and only bundles are signed; give an export in it" in line_of(capsys)


def test_benchmark_measures_what_it_has_signed_of_a_run_and_names_the_rest(
    own_small: Path, small_bundle: Path, key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    signing.sign(own_small, private(1))
    run = tmp_path / "run"
    shutil.copytree(own_small, run / "export" / "one")
    shutil.copytree(small_bundle, run / "export" / "two")
    found = tmp_path / "found.json"
    call = ["benchmark", str(run), "--threads", "1", "--runs", "1", "--trusted", key, "--json", str(found)]
    assert main(call) == 1
    assert f"{run / 'export' / 'two'}: not signed" in line_of(capsys)
    report = json.loads(found.read_text())
    assert [one["name"] for one in report["bundles"]] == ["one"]
    assert [one["folder"] for one in report["failed"]] == [str(run / "export" / "two")]


@pytest.mark.parametrize("name", ["predict", "benchmark"])
def test_a_key_that_is_none_is_named_once(
    own_small: Path, small_bundle: Path, picture: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rest = [picture] if name == "predict" else [str(small_bundle)]
    assert main([name, str(own_small), *rest, "--trusted", picture]) == 2
    assert f"{picture}: not a public key in PEM" in line_of(capsys)


def test_what_is_measured_is_what_was_checked(
    own_small: Path, key: str, seal: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bundle is replaced between the check of its signature and the start of the process that measures it."""
    signing.sign(own_small, private(1))
    ask = job.ask

    def late(request: edge.Request) -> dict[str, Any]:
        (own_small / "card.json").write_text((own_small / "card.json").read_text() + " ")
        seal(own_small)
        return ask(request)

    monkeypatch.setattr(job, "ask", late)
    with pytest.raises(job.LeakdetError, match="changed while it was opened"):
        job.benchmark([str(own_small)], threads=[1], runs=1, warm_up=0, trusted=key, log=lambda _: None)

"""Building engines and running them, on stand-ins for TensorRT and CUDA: no test here has seen a GPU."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from leakdet_tf.core.errors import BundleError, LeakdetError, MissingExtraError
from leakdet_tf.edge import Predictor, open_bundle, signing
from leakdet_tf.edge.backends import cuda
from leakdet_tf.edge.tensorrt import Settings, open_engine
from leakdet_tf.edge.tensorrt_build import build, trtexec_command


def opened(folder: Path) -> Predictor:
    backend, _ = open_engine(open_bundle(folder))
    return Predictor.over(backend, open_bundle(folder).contract)


VERSIONS = ["8.6.2", "10.3.0", "10.13.3"]
SHAPES = "image:1x8x16x3"


@pytest.mark.parametrize(
    ("precision", "flags"),
    [("float32", ["--noTF32"]), ("float16", ["--fp16"]), ("int8", ["--int8", "--fp16", "--calib=t.table"])],
)
def test_trtexec_is_called_as_both_generations_document_it(device: Any, precision: str, flags: list[str]) -> None:
    table = Path("t.table") if precision == "int8" else None
    settings = Settings(precision, 512)
    line = trtexec_command("trtexec", Path("m.onnx"), Path("e.plan"), device.make.CONTRACT, settings, table=table)
    assert line == [
        "trtexec",
        "--onnx=m.onnx",
        "--saveEngine=e.plan",
        f"--minShapes={SHAPES}",
        f"--optShapes={SHAPES}",
        f"--maxShapes={SHAPES}",
        "--memPoolSize=workspace:512",
        *flags,
        "--skipInference",
    ]


def test_several_inputs_stand_in_one_option_of_trtexec(device: Any) -> None:
    line = trtexec_command("trtexec", Path("m"), Path("e"), device.make.WIDE, Settings("float32"))
    both = "image:1x8x16x3,thermal:1x8x16x1"
    shapes = [f"--{which}Shapes={both}" for which in ("min", "opt", "max")]
    assert line == ["trtexec", "--onnx=m", "--saveEngine=e", *shapes, "--noTF32", "--skipInference"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("precision", "flags"),
    [("float32", []), ("float16", ["FP16", "TF32"]), ("int8", ["FP16", "INT8", "TF32"])],
)
def test_the_builder_is_told_the_same(
    device: Any, bundle: Path, version: str, precision: str, flags: list[str]
) -> None:
    device.trt.behave(version)
    built = build(bundle, Settings(precision, 512))
    ((told, pools, profile, table),) = device.world.log
    assert told == flags
    assert pools == {"WORKSPACE": 512 << 20}
    assert profile == {"image": [[1, 8, 16, 3]] * 3}
    assert (table is not None) == (precision == "int8")
    assert built.new
    assert built.engine.key.tensorrt == version


@pytest.mark.parametrize("contract", ["CONTRACT", "WIDE"])
def test_int8_is_calibrated_on_every_picture_of_the_bundle(device: Any, tmp_path: Path, contract: str) -> None:
    folder = device.make.bundle(tmp_path / contract, getattr(device.make, contract))
    built = build(folder, Settings("int8"))
    with np.load(folder / "calibration.npz") as archive:
        assert len(device.world.pictures) == 7
        for place, seen in enumerate(device.world.pictures):
            for name in archive.files:
                assert np.array_equal(seen[name][0], archive[name][place])
    assert built.engine.card["calibrated_on"] == 7
    assert built.engine.card["table"].startswith("TRT-10.3.0-Entropy")


def test_int8_without_pictures_is_refused_in_one_line(device: Any, tmp_path: Path) -> None:
    folder = device.make.bundle(tmp_path / "bare", pictures=False)
    with pytest.raises(BundleError, match=r"does not list calibration\.npz") as caught:
        build(folder, Settings("int8"))
    assert "\n" not in str(caught.value)
    assert not device.world.log


def test_pictures_that_were_changed_are_refused_before_they_are_parsed(
    device: Any, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = open_bundle(bundle)
    path = bundle / "calibration.npz"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleError, match=r"calibration\.npz: its SHA-256"):
        build(bundle, Settings("int8"))
    monkeypatch.setattr("leakdet_tf.edge.calibration_set.np.load", lambda *_, **__: pytest.fail("parsed"))
    with pytest.raises(BundleError, match=r"calibration\.npz: its SHA-256"):
        build(whole, Settings("int8"))
    device.make.seal(bundle)  # with its sum, as one would who wants them used under a signature that was checked before
    with pytest.raises(BundleError, match=r"calibration\.npz: its SHA-256"):
        build(whole, Settings("int8"))


@pytest.mark.parametrize(
    "arrays",
    [
        {"other": np.zeros((2, 8, 16, 3), np.uint8)},
        {"image": np.zeros((2, 8, 16, 3), np.float32)},
        {"image": np.zeros((2, 9, 16, 3), np.uint8)},
        {"image": np.zeros((0, 8, 16, 3), np.uint8)},
    ],
    ids=["name", "dtype", "shape", "none"],
)
def test_pictures_that_the_model_does_not_take_are_refused(device: Any, bundle: Path, arrays: Any) -> None:
    np.savez(bundle / "calibration.npz", **arrays)
    device.make.seal(bundle)
    with pytest.raises(BundleError, match=r"calibration\.npz"):
        build(bundle, Settings("int8"))


def test_a_builder_that_does_not_ask_for_the_pictures_is_not_believed(device: Any, bundle: Path) -> None:
    device.world.reads_calibration = False
    with pytest.raises(BundleError, match="asked for 0 of 7 calibration pictures"):
        build(bundle, Settings("int8"))
    assert device.cuda.left == 0


@pytest.mark.parametrize("table", [b"", b"TRT-10.3.0-EntropyCalibration2\n"])
def test_a_table_without_ranges_is_not_kept(device: Any, bundle: Path, table: bytes) -> None:
    device.world.table = table
    with pytest.raises(BundleError, match="a calibration table without ranges; it does not calibrate this graph"):
        build(bundle, Settings("int8"))
    with pytest.raises(BundleError, match="trtexec calibrates int8 on random numbers"):
        build(bundle, Settings("int8"), trtexec="trtexec")
    assert device.cuda.left == 0


def test_a_copy_that_fails_during_calibration_is_told_and_leaves_nothing(device: Any, bundle: Path) -> None:
    device.cuda.failing["cudaMemcpyAsync"] = 700
    with pytest.raises(BundleError, match="cudaMemcpyAsync: an illegal memory access"):
        build(bundle, Settings("int8"))
    assert device.cuda.left == 0


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_eleven_which_takes_precision_from_the_graph_is_not_asked_for_it(
    device: Any, bundle: Path, precision: str
) -> None:
    device.trt.behave("11.0.0")
    with pytest.raises(BundleError, match="TensorRT 11"):
        build(bundle, Settings(precision))
    assert build(bundle, Settings("float32")).new


def test_without_tensorrt_there_is_one_line(device: Any, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    for call in (lambda: build(bundle), lambda: open_engine(open_bundle(bundle))):
        with pytest.raises(MissingExtraError, match="TensorRT cannot be imported") as caught:
            call()
        assert "JetPack" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_an_older_tensorrt_and_a_machine_without_cuda_are_told(
    device: Any, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device.trt.__version__ = "8.5.2.2"
    with pytest.raises(MissingExtraError, match=r"8\.5\.2\.2 is too old"):
        build(bundle)
    device.trt.behave("10.3.0")
    monkeypatch.setattr(cuda, "RUNTIMES", ("libcudart-absent.so",))
    monkeypatch.setattr(cuda, "load", lambda: (cuda._library(cuda.RUNTIMES, "the CUDA runtime"), None))
    with pytest.raises(MissingExtraError, match="the CUDA runtime cannot be loaded"):
        build(bundle)


def test_another_kind_of_bundle_is_refused(device: Any, tmp_path: Path) -> None:
    folder = device.make.bundle(tmp_path / "plain", kind="onnx_float32")
    with pytest.raises(BundleError, match="kind 'onnx_float32'"):
        build(folder)
    with pytest.raises(BundleError, match="kind 'onnx_float32'"):
        open_engine(open_bundle(folder))


def test_a_precision_that_does_not_exist_is_named() -> None:
    with pytest.raises(BundleError, match="did you mean 'float16'"):
        Settings("fp16")
    with pytest.raises(BundleError, match="workspace_mib"):
        Settings(workspace_mib=0)


def test_a_graph_that_tensorrt_cannot_read_is_refused_in_one_line(device: Any, bundle: Path) -> None:
    whole = replace(open_bundle(bundle), model=b"\x0arubbish")
    with pytest.raises(BundleError, match=r"model\.onnx: TensorRT cannot read the graph \(cannot parse") as caught:
        build(whole)
    assert "\n" not in str(caught.value)


def test_a_graph_with_other_inputs_than_the_contract_is_refused(device: Any, bundle: Path) -> None:
    other = replace(open_bundle(bundle), contract=device.make.WIDE)
    with pytest.raises(BundleError, match="input 'thermal' is missing, the contract says uint16"):
        build(other)


def test_a_gpu_that_cannot_be_used_is_told(device: Any, bundle: Path) -> None:
    device.cuda.failing["Builder"] = 1
    with pytest.raises(BundleError, match="CUDA initialization failure"):
        build(bundle)
    device.cuda.failing = {"cudaGetDevice": 1}
    with pytest.raises(BundleError, match=r"cudaGetDevice: invalid argument \(status 1\)"):
        build(bundle)


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_an_engine_that_decides_otherwise_is_refused_and_not_kept(device: Any, bundle: Path, precision: str) -> None:
    before = build(bundle, Settings(precision)).engine
    device.world.wrong = 1.0
    with pytest.raises(BundleError, match="answers otherwise than the golden frames") as caught:
        build(bundle, Settings(precision), anew=True)
    assert "\n" not in str(caught.value)
    assert sorted(path.suffix for path in before.path.parent.iterdir() if path.name != "lock") == [
        ".current",
        ".json",
        ".npz",
        ".plan",
    ]
    device.world.wrong = 0.0
    assert build(bundle, Settings(precision)).engine.plan == before.plan
    assert device.cuda.left == 0


def test_float32_is_held_to_the_bundle_s_tolerance_and_others_are_not(device: Any, bundle: Path) -> None:
    device.world.noise = dict.fromkeys(device.world.noise, 3e-3)
    with pytest.raises(BundleError, match=r"outputs differ by 0\.003, limit 0\.001"):
        build(bundle, Settings("float32"))
    card = build(bundle, Settings("float16")).engine.card
    assert card["agreement"]["largest"] == pytest.approx(3e-3, rel=0.01)
    assert card["agreement"]["clear"] == 0


def test_an_engine_with_two_answers_or_none_is_refused(device: Any, bundle: Path) -> None:
    device.world.jitter = 0.1
    with pytest.raises(BundleError, match="gives one frame two answers"):
        build(bundle)
    device.world.jitter = float("nan")
    with pytest.raises(BundleError, match="gives one frame two answers"):
        build(bundle)


def test_trtexec_builds_what_the_api_builds(device: Any, bundle: Path, tmp_path: Path, monkeypatch: Any) -> None:
    program, record = device.make.trtexec(tmp_path), tmp_path / "line.json"
    monkeypatch.setenv("STANDIN_RECORD", str(record))
    with pytest.raises(BundleError, match="trtexec calibrates int8 on random numbers"):
        build(bundle, Settings("int8"), trtexec=program)
    for precision in ("float32", "float16", "int8"):
        api = build(bundle, Settings(precision)).engine
        made = build(bundle, Settings(precision), trtexec=program).engine
        assert made.plan == api.plan
        assert made.card["built_by"] == "trtexec"
        assert made.card["table"] == api.card["table"]
        assert not build(bundle, Settings(precision), trtexec=program).new
        assert not build(bundle, Settings(precision)).new, "whoever does not ask for a builder takes what is there"
        line = json.loads(record.read_text())
        assert line[-1] == "--skipInference"
        assert any(part.startswith("--calib=") for part in line) == (precision == "int8")


def test_trtexec_that_is_missing_or_fails_is_told(device: Any, bundle: Path, tmp_path: Path, monkeypatch: Any) -> None:
    with pytest.raises(BundleError, match="no such program"):
        build(bundle, trtexec="absent-trtexec")
    monkeypatch.setenv("STANDIN_FAIL", "1")
    with pytest.raises(BundleError, match="could not find any implementation") as caught:
        build(bundle, trtexec=device.make.trtexec(tmp_path))
    assert "\n" not in str(caught.value)
    left = [path.name for path in (tmp_path / "cache" / "engines").iterdir()]
    assert left == ["lock"]


def test_the_command_builds_and_says_what_it_did(device: Any, bundle: Path, tmp_path: Path) -> None:
    from leakdet_tf.cli.engine import command

    for word in ("built", "there already"):
        done = CliRunner().invoke(command, [str(bundle), "--precision", "int8", "--workspace", "256"])
        assert done.exit_code == 0, done.output
        assert "0 of 256 decisions changed" in done.output
        assert f"{word}: " in done.output
        assert "LEAKDET_CACHE" not in done.output
    assert opened(bundle).backend
    done = CliRunner().invoke(command, [str(bundle), "--cache", str(tmp_path / "own")])
    assert f"programs that run it need LEAKDET_CACHE={tmp_path / 'own'}" in done.output


def test_the_command_takes_only_what_the_trusted_key_signed(device: Any, bundle: Path, tmp_path: Path) -> None:
    from leakdet_tf.cli.engine import command

    key = tmp_path / "maker.pub"
    maker, other = (Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in (1, 2))
    key.write_bytes(maker.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    call = [str(bundle), "--trusted", str(key)]

    def refused(says: str) -> None:
        done = CliRunner().invoke(command, call)
        assert isinstance(done.exception, LeakdetError)
        assert says in str(done.exception)
        assert not device.world.log, "nothing was built"

    refused("not signed (certificate.json")
    signing.sign(bundle, other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    refused("not signed by the trusted key")
    signing.sign(bundle, maker.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), replace=True)
    done = CliRunner().invoke(command, call)
    assert done.exit_code == 0, done.output
    assert "built: " in done.output
    (bundle / "card.json").write_text((bundle / "card.json").read_text() + " ")
    device.world.log.clear()
    refused("card.json: its SHA-256 is not the one")
    key.write_text("no key")
    refused(f"{key}: not a public key in PEM")

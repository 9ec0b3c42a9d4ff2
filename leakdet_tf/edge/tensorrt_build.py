"""TensorRT engines, built on the device that runs them, from bundles that :mod:`leakdet_tf.edge.tensorrt` tells of.

An engine is built by TensorRT's Python API or by ``trtexec``, answers the bundle's golden frames, and is kept by
:mod:`leakdet_tf.edge.engines`; one that answers otherwise is not.

Facts of TensorRT that shape this file, from NVIDIA's documentation:

- 8.6 (JetPack 6.0) and 10 (JetPack 6.1 and later) differ little here: 8.6 must be told that the batch is explicit.
- uint8 is taken as a network's input if the graph casts it to float first; there is no uint16, so such inputs are
  float32 in the file, and what computes with them stays so (:mod:`leakdet_tf.edge.wide_inputs`).
- int8 by a calibrator is deprecated from 10.1 and gone in 11, and so are the flags for float16 and int8: from then on a
  graph says itself what is computed in what. Bundles say float32, so 11 builds that alone.
- ``trtexec --int8`` without a table calibrates on random numbers, so it is never called that way.
- float32 is computed with TF32's short mantissas on GPUs that have them, unless that is switched off, as here.

Nothing of this has run on a GPU yet: command lines, cache and checks are tested, with a stand-in for TensorRT and CUDA.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from leakdet_tf.core.contract import Contract
from leakdet_tf.core.errors import BundleError
from leakdet_tf.core.files import write_bytes
from leakdet_tf.core.version import __version__
from leakdet_tf.edge import engines
from leakdet_tf.edge.agreement import Agreement, compare, objection
from leakdet_tf.edge.backends.tensorrt import TensorRTBackend, last, library, listener, version
from leakdet_tf.edge.bundle import Bundle, GoldenFrame, open_bundle
from leakdet_tf.edge.calibration_set import CALIBRATION, Pictures, calibrator, read_pictures
from leakdet_tf.edge.engines import Engine, Key
from leakdet_tf.edge.golden import gap
from leakdet_tf.edge.sums import SUMS
from leakdet_tf.edge.tensorrt import FLAGS, Settings, check_kind, key_of
from leakdet_tf.edge.wide_inputs import hold_in_float32, wide

TRTEXEC = "/usr/src/tensorrt/bin/trtexec"
"""Where JetPack puts it, outside the search path."""
_LIMIT_S = 4 * 3600
_STRONG = 11  # the first version whose builder takes no precision

Log = Callable[[str], object]


@dataclass(frozen=True, eq=False)
class Built:
    """The engine, and whether it was built now or was there."""

    engine: Engine
    new: bool


def build(
    bundle: str | Path | Bundle,
    settings: Settings | None = None,
    *,
    cache: str | Path | None = None,
    trtexec: str | Path | None = None,
    anew: bool = False,
    max_changed: float | None = None,
    log: Log = lambda line: None,
) -> Built:
    """Build the bundle's engine for this device, unless it is there, and make it the one that is opened.

    Args:
        bundle: the folder of a ``tensorrt`` export, or what :func:`~leakdet_tf.edge.bundle.open_bundle` gave.
        settings: precision and memory.
        cache: folder for engines; None takes the usual one, see :func:`leakdet_tf.edge.engines.home`.
        trtexec: build by this program instead of the Python API, and again where that has built what is there.
        anew: build even if there is one.
        max_changed: largest share of golden decisions that may clearly change; None takes the precision's.
        log: told what happens, a line at a time.

    Raises:
        BundleError: the bundle is not of that kind or cannot be built so, TensorRT refuses, or the engine answers the
            golden frames otherwise: it is not kept, and an older one stays.
        MissingExtraError: TensorRT or CUDA is not on this machine.
    """
    opened = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
    wanted = settings or Settings()
    check_kind(opened)
    trt = library()
    key = key_of(opened, wanted, trt)
    if trtexec is not None and wanted.precision != "float32" and wide(opened.contract):
        raise BundleError(
            f"{opened.folder}: 16-bit pixels need float32 layers, and trtexec passes over names of layers in silence",
            remedy="build it without --trtexec, or with --precision float32",
        )
    pictures = _read_set(opened, wanted, version(trt)[0])
    folder = engines.home(cache)
    with engines.lock(folder, log):
        kept = _find_kept(folder, key, log)
        if kept is not None and not anew and (trtexec is None or kept.card.get("built_by") == "trtexec"):
            engines.choose(folder, key)
            return Built(kept, new=False)
        start = perf_counter()
        log(f"building a {wanted.precision} engine for {key.gpu}, TensorRT {key.tensorrt}: this takes minutes")
        if trtexec is None:
            plan, table = _build_by_api(trt, opened, wanted, pictures)
        else:
            table = _table(kept, pictures)
            plan = _build_by_trtexec(trtexec, opened, wanted, table, folder)
        found, golden = _try_out(plan, opened, wanted.precision)
        if against := objection(found, wanted.precision, opened.golden_tolerance, max_changed):
            raise BundleError(
                f"{opened.folder}: the {wanted.precision} engine answers otherwise than the golden frames: {against}",
                remedy="it was not kept; take a higher --precision, or another version of TensorRT",
            )
        card = {
            "leakdet_tf": __version__,
            "built_by": "python" if trtexec is None else "trtexec",
            "seconds": round(perf_counter() - start, 1),
            "bytes": len(plan),
            "agreement": found.to_dict(),
            "max_changed": max_changed,
            "calibrated_on": None if pictures is None else pictures.number,
            "table": table,
            "note": "the bundle's figures are those of model.onnx; this engine's accuracy is what is measured on it",
        }
        return Built(engines.store(folder, key, plan, golden, card), new=True)


def trtexec_command(
    program: str | Path,
    model: Path,
    plan: Path,
    contract: Contract,
    settings: Settings,
    *,
    table: Path | None = None,
) -> list[str]:
    """The command line by which trtexec builds ``model`` into ``plan``; ``table`` is for int8."""
    shapes = ",".join(f"{name}:{'x'.join(map(str, (1, *spec.shape)))}" for name, spec in contract.inputs.items())
    line = [str(program), f"--onnx={model}", f"--saveEngine={plan}"]
    line += [f"--{which}Shapes={shapes}" for which in ("min", "opt", "max")]
    if settings.workspace_mib is not None:
        line.append(f"--memPoolSize=workspace:{settings.workspace_mib}")
    line += FLAGS[settings.precision]
    if table is not None:
        line.append(f"--calib={table}")
    return [*line, "--skipInference"]


def _read_set(bundle: Bundle, settings: Settings, major: int) -> Pictures | None:
    # what int8 is calibrated on; None where nothing is. Refuses what this TensorRT cannot build.
    if settings.precision == "float32":
        return None
    if major >= _STRONG:
        raise BundleError(
            f"TensorRT {major} computes in what the graph says, and {bundle.folder} says float32",
            remedy="build it with --precision float32, or with TensorRT 10, which every JetPack so far has",
        )
    if settings.precision == "float16":
        return None
    if CALIBRATION not in bundle.sums:
        raise BundleError(
            f"{bundle.folder / SUMS}: does not list {CALIBRATION}, and int8 without calibration pictures is guesswork",
            remedy="export the bundle with calibration pictures, or build it with --precision float16",
        )
    return read_pictures(bundle.folder / CALIBRATION, bundle.sums[CALIBRATION], bundle.contract)


def _find_kept(folder: Path, key: Key, log: Log) -> Engine | None:
    try:
        return engines.find(folder, key)
    except BundleError as error:
        log(f"{error.args[0]}; building it again")
        return None


def _table(kept: Engine | None, pictures: Pictures | None) -> str | None:
    # trtexec cannot calibrate on pictures: what the Python API has found on these, for this key
    if pictures is None:
        return None
    if kept is None:
        raise BundleError(
            "trtexec calibrates int8 on random numbers",
            remedy="build it without --trtexec first, which keeps its table",
        )
    return str(kept.card["table"])


def _build_by_api(trt: Any, bundle: Bundle, settings: Settings, pictures: Pictures | None) -> tuple[bytes, str | None]:
    # the serialized engine and its calibration table
    log = listener(trt)
    where = bundle.folder / bundle.model_file
    try:
        builder = trt.Builder(log)
    except (TypeError, RuntimeError) as error:  # pybind11's word for a constructor that gave nothing
        raise BundleError(f"TensorRT cannot start here ({last(log)})", remedy="is the GPU free?") from error
    batch = 1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH) if version(trt)[0] < 10 else 0
    network = builder.create_network(batch)
    parser = trt.OnnxParser(network, log)
    if not parser.parse(bundle.model):
        said = [str(parser.get_error(place).desc()) for place in range(parser.num_errors)]
        text = " ".join((said[0] if said else last(log)).split())
        raise BundleError(f"{where}: TensorRT cannot read the graph ({text[:300]})", remedy="export the model again")
    _same_inputs(trt, network, bundle)
    config = builder.create_builder_config()
    if settings.workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace_mib << 20)
    profile = builder.create_optimization_profile()
    for name, spec in bundle.contract.inputs.items():
        profile.set_shape(name, (1, *spec.shape), (1, *spec.shape), (1, *spec.shape))
    config.add_optimization_profile(profile)
    if settings.precision == "float32":
        config.clear_flag(trt.BuilderFlag.TF32)
    else:
        config.set_flag(trt.BuilderFlag.FP16)
    if settings.precision == "int8":
        config.set_flag(trt.BuilderFlag.INT8)
    if settings.precision != "float32":
        hold_in_float32(trt, network, config, bundle.contract)
    feed = None
    if pictures is not None:
        config.set_calibration_profile(profile)
        feed = calibrator(trt, pictures)
        config.int8_calibrator = feed
    try:
        plan = builder.build_serialized_network(network, config)
    finally:
        if feed is not None:
            feed.close()
    if feed is not None:
        feed.check(where)
    if plan is None:
        raise BundleError(f"{where}: TensorRT builds no engine ({last(log)})", remedy="free memory, or lower precision")
    return bytes(plan), None if feed is None else feed.table.decode("latin-1")


def _same_inputs(trt: Any, network: Any, bundle: Bundle) -> None:
    dtypes = {trt.DataType.FLOAT: "float32", trt.DataType.UINT8: "uint8"}
    given = {tensor.name: tensor for tensor in (network.get_input(place) for place in range(network.num_inputs))}
    for name, spec in bundle.contract.inputs.items():
        tensor = given.get(name)
        dtype = "missing" if tensor is None else dtypes.get(tensor.dtype, "another dtype")
        if tensor is None or tuple(tensor.shape)[1:] != spec.shape or dtype not in spec.carriers:
            raise BundleError(
                f"{bundle.folder / bundle.model_file}: input '{name}' is {dtype}"
                f"{'' if tensor is None else f' {tuple(tensor.shape)}'}, the contract says {spec.dtype} {spec.shape}",
                remedy="export the model again",
            )


def _build_by_trtexec(
    trtexec: str | Path, bundle: Bundle, settings: Settings, table: str | None, folder: Path
) -> bytes:
    program = shutil.which(trtexec) or (shutil.which(TRTEXEC) if str(trtexec) == "trtexec" else None)
    if program is None:
        raise BundleError(f"{trtexec}: no such program", remedy=f"give its path; JetPack has it at {TRTEXEC}")
    with tempfile.TemporaryDirectory(prefix=".trtexec.", dir=folder) as work:
        model, plan = Path(work) / "model.onnx", Path(work) / "engine.plan"
        write_bytes(model, bundle.model)  # the bytes that have been checked, not whatever lies in the bundle by now
        ranges = None
        if table is not None:
            ranges = Path(work) / "calibration.table"
            write_bytes(ranges, table.encode("latin-1"))
        line = trtexec_command(program, model, plan, bundle.contract, settings, table=ranges)
        try:
            done = subprocess.run(line, capture_output=True, text=True, errors="replace", timeout=_LIMIT_S, check=False)
        except subprocess.TimeoutExpired as error:
            raise BundleError(f"{program}: took over {_LIMIT_S} s", remedy="use a smaller input") from error
        if done.returncode != 0 or not plan.is_file():
            said = [text for text in (done.stdout + done.stderr).splitlines() if "[E]" in text] or ["no message"]
            raise BundleError(
                f"{program}: failed ({said[-1].strip()[:300]})", remedy="run it by hand to see all it says"
            )
        return plan.read_bytes()


def _try_out(plan: bytes, bundle: Bundle, precision: str) -> tuple[Agreement, list[GoldenFrame]]:
    # how the engine answers the golden frames, and the frames with its own answers, which it must give again
    backend = TensorRTBackend(plan, bundle.contract)
    try:
        pairs, golden = [], []
        for frame in bundle.golden:
            inputs, geometry = bundle.contract.prepare(frame.images)
            answered = backend.run(inputs)
            again = backend.run(inputs)
            apart = max(gap(answered[name], again[name], bundle.contract, geometry) for name in answered)
            if not apart <= bundle.golden_tolerance:
                raise BundleError(
                    f"{bundle.folder}: the {precision} engine gives one frame two answers (difference {apart:.2g})",
                    remedy="it was not kept; this GPU or TensorRT computes wrongly, or the model's output overflows",
                )
            pairs.append((frame.outputs, answered, geometry))
            golden.append(GoldenFrame(frame.images, answered))
        return compare(pairs, bundle.contract, precision), golden
    finally:
        backend.close()

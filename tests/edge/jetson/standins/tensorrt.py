"""Stands in for the ``tensorrt`` package: the part of its interface that is used, as 8.6, 10 and 11 have it.

``behave("10.3.0")`` makes it that version. An engine holds the ONNX model and is run by ONNX Runtime on the memory of
``fake_cuda``, so wrong names, shapes, sizes, dtypes or addresses show. What another version or GPU built is refused.
"""

from __future__ import annotations

import ctypes
import enum
import hashlib
import json
import os
import sys
from types import SimpleNamespace

import fake_cuda
import numpy as np
import onnx
import onnxruntime
from google.protobuf.message import DecodeError

MAGIC = b"STANDIN"


class World:
    """What the stand-in does, and what it was told."""

    def __init__(self) -> None:
        self.noise = {"float32": 0.0, "float16": 2.0**-12, "int8": 2.0**-9}
        self.wrong = 0.0  # share of other classes' answers in what an engine answers
        self.jitter = 0.0  # by which it differs from one time to the next
        self.reads_calibration = True
        self.table: bytes | None = None  # in place of the true one
        self.pause = lambda: None
        self.log: list[tuple] = []
        self.held: list[str] = []  # the layers that the last build was told to keep in float32
        self.pictures: list[dict[str, np.ndarray]] = []


world = World()


class DataType(enum.Enum):
    FLOAT, HALF, INT8, INT32, BOOL, UINT8 = range(6)


class TensorIOMode(enum.Enum):
    NONE, INPUT, OUTPUT = range(3)


class MemoryPoolType(enum.Enum):
    WORKSPACE, DLA_MANAGED_SRAM = range(2)


class LayerType(enum.Enum):
    CONVOLUTION, DECONVOLUTION, MATRIX_MULTIPLY, CAST, SHAPE, ELEMENTWISE = range(6)


class ILogger:
    class Severity(enum.Enum):
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

    def __init__(self) -> None:
        pass


class _Calibrator:
    def __init__(self) -> None:
        self.started = True


def behave(version: str) -> None:
    """Become that version."""
    here = sys.modules[__name__]
    here.__version__ = version
    major = int(version.split(".")[0])
    flags = {"TF32": 7} | ({"FP16": 0, "INT8": 1, "OBEY_PRECISION_CONSTRAINTS": 11} if major < 11 else {})
    here.BuilderFlag = enum.Enum("BuilderFlag", flags)
    here.NetworkDefinitionCreationFlag = enum.IntEnum(
        "NetworkDefinitionCreationFlag", {"EXPLICIT_BATCH": 0} if major < 11 else {"STRONGLY_TYPED": 1}
    )
    if major < 11:
        here.IInt8EntropyCalibrator2 = _Calibrator
    elif hasattr(here, "IInt8EntropyCalibrator2"):
        del here.IInt8EntropyCalibrator2


behave(os.environ.get("STANDIN_TENSORRT", "10.3.0"))
_KINDS = {
    onnx.TensorProto.UINT8: DataType.UINT8,
    onnx.TensorProto.FLOAT: DataType.FLOAT,
    onnx.TensorProto.INT64: DataType.INT32,
}
_LAYERS = {
    "Conv": "CONVOLUTION",
    "ConvTranspose": "DECONVOLUTION",
    "MatMul": "MATRIX_MULTIPLY",
    "Gemm": "MATRIX_MULTIPLY",
    "Cast": "CAST",
    "Shape": "SHAPE",
}
_NUMPY = {DataType.UINT8: np.uint8, DataType.FLOAT: np.float32, DataType.HALF: np.float16}


def _tensor(value):
    kind = value.type.tensor_type
    shape = tuple(part.dim_value if part.HasField("dim_value") else -1 for part in kind.shape.dim)
    return SimpleNamespace(name=value.name, shape=shape, dtype=_KINDS[kind.elem_type])


class Network:
    def __init__(self, explicit: bool) -> None:
        self.explicit, self.model, self.inputs, self.layers = explicit, b"", [], []

    @property
    def num_inputs(self) -> int:
        return len(self.inputs)

    def get_input(self, place: int):
        return self.inputs[place]

    @property
    def num_layers(self) -> int:
        return len(self.layers)

    def get_layer(self, place: int):
        return self.layers[place]


class Layer:
    """A node of the graph; constants are layers of their own in TensorRT, and no inputs here."""

    def __init__(self, node, kinds: dict) -> None:
        self.name, self.precision, self.output_types = node.output[0], None, {}
        self.type = LayerType[_LAYERS.get(node.op_type, "ELEMENTWISE")]
        self._inputs = [SimpleNamespace(name=name) if name else None for name in node.input]
        self._outputs = [SimpleNamespace(name=name, dtype=_KINDS[kinds[name]]) for name in node.output]
        self.num_inputs, self.num_outputs = len(self._inputs), len(self._outputs)

    def get_input(self, place: int):
        return self._inputs[place]

    def get_output(self, place: int):
        return self._outputs[place]

    def set_output_type(self, place: int, kind: DataType) -> None:
        self.output_types[place] = kind

    @property
    def held(self) -> bool:
        return self.precision is DataType.FLOAT and set(self.output_types.values()) == {DataType.FLOAT}


class OnnxParser:
    def __init__(self, network: Network, logger: ILogger) -> None:
        self.network, self.errors = network, []

    def parse(self, model: bytes) -> bool:
        if not self.network.explicit:
            self.errors = ["This version of the ONNX parser only supports networks with an explicit batch dimension"]
            return False
        try:
            proto = onnx.load_from_string(model)
            onnx.checker.check_model(proto)
        except (DecodeError, onnx.checker.ValidationError) as error:
            self.errors = [f"cannot parse:\n{error}"]
            return False
        self.network.model = model
        self.network.inputs = [_tensor(value) for value in proto.graph.input]
        graph = onnx.shape_inference.infer_shapes(proto).graph
        kinds = {one.name: one.type.tensor_type.elem_type for one in (*graph.value_info, *graph.output)}
        self.network.layers = [Layer(node, kinds) for node in graph.node]
        return True

    @property
    def num_errors(self) -> int:
        return len(self.errors)

    def get_error(self, place: int):
        return SimpleNamespace(desc=lambda: self.errors[place])


class Profile:
    def __init__(self) -> None:
        self.shapes: dict = {}

    def set_shape(self, name, low, usual, high) -> None:
        self.shapes[name] = [list(low), list(usual), list(high)]


class Config:
    def __init__(self) -> None:
        self.flags, self.pools, self.profiles = {"TF32"}, {}, []
        self.int8_calibrator, self.calibration_profile = None, None

    def set_flag(self, flag) -> None:
        self.flags.add(flag.name)

    def clear_flag(self, flag) -> None:
        self.flags.discard(flag.name)

    def set_memory_pool_limit(self, pool, size) -> None:
        self.pools[pool.name] = size

    def add_optimization_profile(self, profile) -> int:
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def set_calibration_profile(self, profile) -> bool:
        self.calibration_profile = profile
        return True


class HostMemory(bytearray):
    """Bytes by the buffer protocol, as IHostMemory."""


class Builder:
    def __init__(self, logger: ILogger) -> None:
        if "Builder" in fake_cuda.state.failing:
            logger.log(ILogger.Severity.ERROR, "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self.logger = logger

    def create_network(self, flags: int = 0) -> Network:
        return Network(explicit=int(__version__.split(".")[0]) >= 10 or bool(flags & 1))  # noqa: F821

    def create_builder_config(self) -> Config:
        return Config()

    def create_optimization_profile(self) -> Profile:
        return Profile()

    def build_serialized_network(self, network: Network, config: Config):
        profile = config.profiles[0].shapes if config.profiles else {}
        for tensor in network.inputs:
            if -1 in tensor.shape and tensor.name not in profile:
                self.logger.log(ILogger.Severity.ERROR, "dynamic input without an optimization profile")
                return None
        table = self._calibrated(network, config, profile)
        world.log.append((sorted(config.flags), dict(config.pools), profile, table))
        world.held = [layer.name for layer in network.layers if layer.held]
        world.pause()
        held = world.held if "OBEY_PRECISION_CONSTRAINTS" in config.flags else []
        return HostMemory(serialized(network.model, precision_of(config.flags), profile, held))

    def _calibrated(self, network: Network, config: Config, profile: dict):
        feed = config.int8_calibrator
        if "INT8" not in config.flags or feed is None:
            return None
        assert feed.started, "the calibrator's own constructor was not called"
        assert config.calibration_profile is config.profiles[0]
        assert feed.get_batch_size() == 1
        digest = hashlib.sha256()
        names = [tensor.name for tensor in network.inputs]
        while feed.read_calibration_cache() is None and world.reads_calibration:
            addresses = feed.get_batch(names)
            if not addresses:
                break
            seen = {}
            for tensor, address in zip(network.inputs, addresses, strict=True):
                shape = profile[tensor.name][1]
                seen[tensor.name] = _array(address, shape, tensor.dtype).copy()
                digest.update(seen[tensor.name].tobytes())
            world.pictures.append(seen)
        table = f"TRT-{__version__}-EntropyCalibration2\noutput: {digest.hexdigest()[:8]}\n".encode()  # noqa: F821
        table = table if world.table is None else world.table
        feed.write_calibration_cache(memoryview(table))
        return table


def precision_of(flags) -> str:
    return "int8" if "INT8" in flags else "float16" if "FP16" in flags else "float32"


def serialized(model: bytes, precision: str, profile: dict, held=()) -> bytes:
    head = {"version": __version__, "gpu": fake_cuda.state.gpu, "precision": precision, "profile": profile}  # noqa: F821
    head["held"] = list(held)
    return MAGIC + json.dumps(head).encode() + b"\n" + model


class Runtime:
    def __init__(self, logger: ILogger) -> None:
        self.logger = logger

    def deserialize_cuda_engine(self, plan: bytes):
        if not plan.startswith(MAGIC):
            self.logger.log(ILogger.Severity.ERROR, "Error Code 1: magicTag does not match")
            return None
        head, _, model = plan[len(MAGIC) :].partition(b"\n")
        told = json.loads(head)
        if told["version"] != __version__ or told["gpu"] != json.loads(json.dumps(fake_cuda.state.gpu)):  # noqa: F821
            self.logger.log(
                ILogger.Severity.ERROR, "the engine plan file\n is not compatible with this version or device"
            )
            return None
        return Engine(told, model)


class Engine:
    def __init__(self, told: dict, model: bytes) -> None:
        self.told = told
        proto = onnx.load_from_string(model)
        self.inputs = [_tensor(value) for value in proto.graph.input]
        self.outputs = [_tensor(value) for value in proto.graph.output]
        self.tensors = {tensor.name: tensor for tensor in (*self.inputs, *self.outputs)}
        self.session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        held, floats = set(told["held"]), {one.name for one in self.inputs if one.dtype is DataType.FLOAT}
        loose = [name for node in proto.graph.node if node.output[0] not in held for name in node.input]
        self.lowered = floats.intersection(loose) if told["precision"] != "float32" else set()

    @property
    def num_io_tensors(self) -> int:
        return len(self.tensors)

    def get_tensor_name(self, place: int) -> str:
        return list(self.tensors)[place]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in [one.name for one in self.inputs] else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        return self.tensors[name].dtype

    def get_tensor_shape(self, name: str):
        return self.tensors[name].shape

    def create_execution_context(self):
        return Context(self)


class Context:
    def __init__(self, engine: Engine) -> None:
        self.engine, self.shapes, self.addresses = engine, {}, {}

    def set_input_shape(self, name: str, shape) -> bool:
        low, _, high = self.engine.told["profile"][name]
        fits = all(a <= n <= b for a, n, b in zip(low, shape, high, strict=True))
        if fits:
            self.shapes[name] = tuple(shape)
        return fits

    def get_tensor_shape(self, name: str):
        if name in self.shapes:
            return self.shapes[name]
        batch = next(iter(self.shapes.values()))[0] if len(self.shapes) == len(self.engine.inputs) else -1
        return tuple(batch if part == -1 else part for part in self.engine.tensors[name].shape)

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return name in self.engine.tensors

    def execute_async_v3(self, stream_handle: int) -> bool:
        if set(self.addresses) != set(self.engine.tensors) or stream_handle not in fake_cuda.state.streams:
            return False
        if "execute_async_v3" in fake_cuda.state.failing:
            return False
        fed = {
            one.name: _array(self.addresses[one.name], self.shapes[one.name], one.dtype) for one in self.engine.inputs
        }
        for name in self.engine.lowered:
            with np.errstate(over="ignore"):
                fed[name] = fed[name].astype(np.float16).astype(np.float32)
        names = [one.name for one in self.engine.outputs]
        for name, answer in zip(names, self.engine.session.run(names, fed), strict=True):
            place = _array(self.addresses[name], answer.shape, self.engine.tensors[name].dtype)
            noise = world.noise[self.engine.told["precision"]]
            ripple = noise * np.cos(np.arange(answer.size, dtype=np.float32)).reshape(answer.shape)
            jitter = world.jitter * np.random.default_rng().normal(size=answer.shape)
            place[...] = answer + ripple + jitter + world.wrong * answer[..., ::-1]
        return True


def _array(address: int, shape, dtype: DataType) -> np.ndarray:
    kind = np.dtype(_NUMPY[dtype])
    size = int(np.prod(shape)) * kind.itemsize
    assert fake_cuda.within(fake_cuda.state.device, address, size), "no such memory on the GPU"
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address)).view(kind).reshape(shape)

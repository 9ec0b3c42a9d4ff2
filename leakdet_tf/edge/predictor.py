"""From a frame to an answer in the frame's own pixels: the same steps for an exported file and for a Keras model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from leakdet_tf.core.contract import Contract
from leakdet_tf.core.errors import BundleError, ContractError
from leakdet_tf.core.images import Geometry, Pixels, decode
from leakdet_tf.core.records import AnyPrediction
from leakdet_tf.core.tasks import task_of
from leakdet_tf.edge.backends import RUNTIMES, open_backend
from leakdet_tf.edge.backends.protocol import Backend
from leakdet_tf.edge.bundle import CONTRACT, Bundle, GoldenFrame, open_bundle
from leakdet_tf.edge.counters import Counters, Stats
from leakdet_tf.edge.golden import gap
from leakdet_tf.edge.trial import rehearse

Frame = str | Path | Pixels


class Predictor:
    """Answers for frames.

    One predictor may be asked from several threads: frames wait for each other where the runtime has to (LiteRT),
    and each answer is its own frame's.

    Args:
        bundle: an export's folder, or one that :func:`open_bundle` has read. Its hashes are checked before anything
            parses it, then its golden frames are answered again and compared with the answers kept in it.
        threads: CPU threads for the model; None takes the runtime's default.
        trusted: a public key of Ed25519 in PEM, the path of its file or its bytes. What that key has not signed is
            refused before anything else looks at it. None takes any bundle that is whole.
        try_first: open the bundle and answer its golden frames in a child process before this one does, as a malformed
            model file can kill the process that parses it. Takes another start of the runtime.
        warm_up: runs of the model before the first answer; the golden frames count among them.

    Raises:
        BundleError: the bundle is incomplete, changed, not signed by the trusted key, kills the process that it is
            tried in, or answers otherwise than when it was made.
        LeakdetError: ``trusted`` is no such key.
        MissingExtraError: the runtime is not installed, or with ``trusted`` the package that checks signatures.

    >>> predictor = Predictor("bundle", threads=2, trusted="maker.pub")
    >>> predictor.predict("frame.jpg").fractions()["gas"]
    """

    def __init__(
        self,
        bundle: str | Path | Bundle,
        *,
        threads: int | None = None,
        trusted: str | Path | bytes | None = None,
        try_first: bool = False,
        warm_up: int = 1,
    ) -> None:
        if warm_up < 0:
            raise BundleError(f"warm_up must be at least 0, not {warm_up}")
        opened = _open(bundle, trusted)
        if try_first:
            rehearse(opened, threads=threads)
        backend, opened = _open_runtime(opened, threads)
        self._setup(backend, opened.contract)
        self.card: dict[str, Any] = opened.card
        self._replay(opened, warm_up)

    @classmethod
    def over(cls, backend: Backend, contract: Contract) -> Predictor:
        """A predictor on a runtime that is already open, such as a Keras model: nothing is replayed."""
        predictor = cls.__new__(cls)
        predictor._setup(backend, contract)
        predictor.card = {}
        return predictor

    def _setup(self, backend: Backend, contract: Contract) -> None:
        self.backend = backend
        self.contract = contract
        self._task = task_of(contract)
        self._counters = Counters()

    def predict(self, frame: Frame | Mapping[str, Frame], *, bgr: bool = False) -> AnyPrediction:
        """The answer for one frame: a :class:`~leakdet_tf.core.records.Mask` of its own size, a
        :class:`~leakdet_tf.core.records.Classification`, or :class:`~leakdet_tf.core.records.Boxes`.

        Args:
            frame: a file's path, or pixels uint8/uint16 (H, W) or (H, W, C) in RGB order; for a model with several
                inputs a mapping from input name to one of these.
            bgr: the pixels are in OpenCV's order.

        Raises:
            ImageError: a file cannot be decoded.
            ContractError: the pixels are not what the contract takes.
        """
        start = perf_counter()
        inputs, geometry = self.prepare(self.load(frame, bgr=bgr))
        invoked = perf_counter()
        outputs = self.backend.run(inputs)
        invoke_ms = (perf_counter() - invoked) * 1e3
        answer = self._task.decode(outputs, self.contract, geometry)
        total_ms = (perf_counter() - start) * 1e3
        self._counters.add(invoke_ms, total_ms)
        return replace(answer, invoke_ms=invoke_ms, total_ms=total_ms)

    def stats(self) -> Stats:
        """How many frames were answered, and how long the last thousand took; may be asked from any thread."""
        return self._counters.stats()

    def reset_stats(self) -> None:
        """Count from here."""
        self._counters.reset()

    def draw(self, frame: Frame | Mapping[str, Frame], answer: Any, *, bgr: bool = False) -> npt.NDArray[np.uint8]:
        """The frame with the answer painted on it: uint8 (H, W, 3), RGB, or BGR when ``bgr``."""
        image = self.load(frame, bgr=bgr)[self.contract.primary]
        drawn: npt.NDArray[np.uint8] = self._task.draw(image, answer, self.contract)
        return drawn[..., ::-1] if bgr else drawn

    def load(self, frame: Frame | Mapping[str, Frame], *, bgr: bool = False) -> dict[str, Pixels]:
        """Pixels (H, W, C) by input name."""
        frames = frame if isinstance(frame, Mapping) else {self.contract.primary: frame}
        self.contract.check_frames(frames)
        return {name: _pixels(frames[name], name, bgr=bgr) for name in self.contract.inputs}

    def prepare(self, images: Mapping[str, Pixels]) -> tuple[dict[str, Pixels], Geometry]:
        """As :meth:`~leakdet_tf.core.contract.Contract.prepare`."""
        return self.contract.prepare(images)

    def outputs(self, images: Mapping[str, Pixels]) -> dict[str, npt.NDArray[np.float32]]:
        """Raw outputs, float32 by name, for original pixels (H, W, C) by input name."""
        return self.backend.run(self.prepare(images)[0])

    def golden(self, images: Mapping[str, Pixels]) -> GoldenFrame:
        """A frame with this runtime's own answer, for a bundle."""
        return GoldenFrame(dict(images), self.outputs(images))

    def _replay(self, bundle: Bundle, warm_up: int) -> None:
        for number, frame in enumerate(bundle.golden):
            try:
                inputs, geometry = self.prepare(frame.images)
            except ContractError as error:
                raise BundleError(
                    f"{bundle.folder}: golden frame {number}: {error.args[0]}", remedy="export it again"
                ) from error
            outputs = self.backend.run(inputs)
            if _dtypes(outputs) != _dtypes(frame.outputs):
                raise BundleError(
                    f"{bundle.folder}: golden frame {number} names other outputs", remedy="export it again"
                )
            try:
                self._task.decode(outputs, self.contract, geometry)
            except ContractError as error:
                raise BundleError(
                    f"{bundle.folder}: {CONTRACT} does not tell what {bundle.model_file} answers: {error.args[0]}",
                    remedy="export it again",
                ) from error
            for name, kept in frame.outputs.items():
                try:
                    found = gap(kept, outputs[name], self.contract, geometry)
                except ContractError as error:
                    raise BundleError(
                        f"{bundle.folder}: golden frame {number} has no answer of this contract: {error.args[0]}",
                        remedy="export it again",
                    ) from error
                if not found <= bundle.golden_tolerance:
                    raise BundleError(
                        f"{bundle.folder}: golden frame {number} is answered otherwise here than where it was made "
                        f"(difference {found:.2g}, limit {bundle.golden_tolerance:.2g})",
                        remedy=f"this runtime computes wrongly: update {RUNTIMES[bundle.model_file]}, or export again",
                    )
        for number in range(len(bundle.golden), warm_up):
            self.outputs(bundle.golden[number % len(bundle.golden)].images)


def _open_runtime(bundle: Bundle, threads: int | None) -> tuple[Backend, Bundle]:
    # an engine differs from model.onnx by its precision: its own golden answers come with it
    if bundle.card.get("kind") == "tensorrt":
        from leakdet_tf.edge.tensorrt import open_engine

        return open_engine(bundle)
    opened = open_backend(bundle.model_file, bundle.model, bundle.contract, threads=threads, folder=bundle.folder)
    return opened, bundle


def _dtypes(outputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, np.dtype[Any]]:
    return {name: array.dtype for name, array in outputs.items()}


def _open(bundle: str | Path | Bundle, trusted: str | Path | bytes | None) -> Bundle:
    if not isinstance(bundle, Bundle):
        return open_bundle(bundle, trusted=trusted)
    if trusted is not None:
        raise BundleError(
            f"{bundle.folder}: has been read without its signature", remedy="give its folder, or open_bundle the key"
        )
    return bundle


def _pixels(frame: Frame, name: str, *, bgr: bool) -> Pixels:
    if isinstance(frame, str | Path):
        return decode(frame)
    pixels: Any = np.asarray(frame)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.dtype not in (np.uint8, np.uint16):
        raise ContractError(
            f"{name}: a frame is uint8 or uint16 (H, W) or (H, W, C), got {pixels.dtype} {pixels.shape}"
        )
    if bgr and pixels.shape[2] == 3:
        turned = np.empty_like(pixels)
        for channel in range(3):  # channel by channel is several times as fast as one turned view
            turned[..., channel] = pixels[..., 2 - channel]
        pixels = turned
    checked: Pixels = pixels
    return checked

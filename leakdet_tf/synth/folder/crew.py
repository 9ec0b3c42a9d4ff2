"""All cores at work: worker processes that render, and the threads that keep them busy.

Workers are fresh interpreters, not forks of this process: a fork would inherit the locks of whatever threads run here
(TensorFlow's, say), and ``multiprocessing`` would run the user's own script again. :mod:`.worker` is
what they run.
"""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import tempfile
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from leakdet_tf.core import errors
from leakdet_tf.core.children import command, environment, search_path
from leakdet_tf.core.errors import DataError, LeakdetError
from leakdet_tf.edge.machine import cores
from leakdet_tf.synth.folder.picture import Picture, Saved, draw
from leakdet_tf.synth.folder.request import Job, Request

FEW = 24
"""Fewer pictures than this are rendered in this process: it would take longer to start others."""
_POOLS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")
_ONE_THREAD = dict.fromkeys(_POOLS, "1")


def work(request: Request, jobs: Sequence[Job], folder: Path, workers: int | None) -> Generator[Saved, None, None]:
    """Render jobs and write their files below ``folder``; yields what each one gave, in order.

    The files are the same for any number of workers. Closing the generator, or any error, ends the workers.

    Raises:
        LeakdetError: what the generator raised, of the same kind; DataError with the last line of the traceback
            where it raised anything else in a worker, or a worker ended before its time.
    """
    function = request.function()
    number = min(cores() if workers is None else workers, len(jobs))
    if not number >= 1 and jobs:
        raise DataError(f"workers is {workers}", remedy="use 1 or more")
    if number <= 1 or (workers is None and len(jobs) < FEW):
        for job in jobs:
            yield draw(function, request, job).save(folder, job)
        return
    crew: list[_Worker] = []
    idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()

    def one(job: Job) -> Saved:
        worker = idle.get()
        try:
            picture = worker.render(job)
        finally:
            idle.put(worker)
        return picture.save(folder, job)

    threads = ThreadPoolExecutor(number)
    try:
        for _ in range(number):
            crew.append(_Worker(request))
            idle.put(crew[-1])
        yield from threads.map(one, jobs)
    finally:
        for worker in crew:
            worker.kill()
        threads.shutdown(wait=True, cancel_futures=True)
        for worker in crew:
            worker.close()


class _Worker:
    """One worker process, and what was asked of it."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the process
        line = command("leakdet_tf.synth.folder.worker")
        try:
            self._process = subprocess.Popen(
                line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, env=environment(**_ONE_THREAD)
            )
        except OSError:
            self._log.close()
            raise
        asked = request.as_json()
        del asked["format"]
        self._ask({"path": search_path(), "request": asked})

    def render(self, job: Job) -> Picture:
        """Have one picture rendered."""
        self._ask(asdict(job))
        answers = self._process.stdout
        assert answers is not None
        head = answers.readline()
        if not head.endswith(b"\n"):
            raise self._gone(job)
        answer = json.loads(head)
        if "error" in answer:
            kind = getattr(errors, answer["error"], LeakdetError)
            raise kind(answer["message"], remedy=answer["remedy"])
        image, mask = (self._exactly(answers, size, job) for size in answer["sizes"])
        return Picture(image, mask, answer["parameters"], tuple(answer["classes"]), answer["truth"])

    def kill(self) -> None:
        """End the process at once; whoever waits for its answer gets none."""
        self._process.kill()

    def close(self) -> None:
        """Free what the process held."""
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            with contextlib.suppress(OSError):  # a question that was never read
                stream.close()
        self._log.close()

    def _ask(self, question: dict[str, Any]) -> None:
        stream = self._process.stdin
        assert stream is not None
        with contextlib.suppress(OSError):  # where it is gone, reading its answer will tell
            stream.write(json.dumps(question).encode("ascii") + b"\n")
            stream.flush()

    def _exactly(self, answers: IO[bytes], size: int, job: Job) -> bytes:
        data = answers.read(size)
        if len(data) != size:
            raise self._gone(job)
        return data

    def _gone(self, job: Job) -> DataError:
        """The error for a process that ended instead of answering."""
        code = self._process.wait()
        self._log.seek(0)
        lines = self._log.read().decode("utf-8", "replace").strip().splitlines()
        reason = lines[-1] if lines and code == 1 else f"its worker ended with status {code}"
        remedy = "fix the generator; leakdet-tf synth --workers 1 shows the whole traceback"
        if code == -9:  # nothing but another process ends one so
            reason, remedy = "its worker was killed (signal 9)", "was memory short? use fewer --workers"
        return DataError(f"generator '{self._request.generator}', seed {job.seed}: {reason}", remedy=remedy)

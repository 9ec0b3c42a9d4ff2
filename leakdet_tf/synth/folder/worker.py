"""A process that renders for another one: ``python -m leakdet_tf.synth.folder.worker``, started by :mod:`.crew`.

It reads a line of JSON that says what is asked for, then a line for each picture, and answers each with a line of JSON
and the bytes of the two files. It ends when its input does, so it never outlives its parent. It writes no files.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any, BinaryIO

from leakdet_tf.core.errors import LeakdetError
from leakdet_tf.synth.folder.picture import draw
from leakdet_tf.synth.folder.request import Job, Request


def main() -> None:
    """Serve until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a generator prints must not come between
    questions = sys.stdin.buffer
    first = questions.readline()
    if first:
        asked = json.loads(first)
        sys.path[:] = asked["path"]
        request = Request(**(asked["request"] | {"size": tuple(asked["request"]["size"])}))
        for line in iter(questions.readline, b""):
            _answer(answers, request, Job(**json.loads(line)))


def _answer(answers: BinaryIO, request: Request, job: Job) -> None:
    try:
        picture = draw(request.function(), request, job)
    except LeakdetError as error:
        _send(answers, {"error": type(error).__name__, "message": str(error.args[0]), "remedy": error.remedy})
        return
    sizes = [len(picture.image), len(picture.mask)]
    about = {"parameters": picture.parameters, "classes": list(picture.classes), "truth": dict(picture.truth)}
    _send(answers, {"sizes": sizes} | about, picture.image, picture.mask)


def _send(answers: BinaryIO, head: dict[str, Any], *bodies: bytes) -> None:
    answers.write(json.dumps(head, allow_nan=False).encode("ascii") + b"\n")
    for body in bodies:
        answers.write(body)
    answers.flush()


if __name__ == "__main__":
    main()

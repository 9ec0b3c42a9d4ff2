"""The child of :mod:`~leakdet_tf.edge.trial`: ``python -m leakdet_tf.edge.trial_child FOLDER DIGEST THREADS``."""

from __future__ import annotations

import json
import sys

from leakdet_tf.core.errors import LeakdetError
from leakdet_tf.edge.bundle import open_again
from leakdet_tf.edge.predictor import Predictor
from leakdet_tf.edge.trial import LIMIT_BYTES, LIMIT_S, REFUSED


def main(folder: str, digest: str, threads: int) -> int:
    """Exit status 0 where the bundle whose files have this digest answers as it should."""
    try:
        opened = open_again(folder, digest)
        if opened.card.get("kind") != "tensorrt":  # CUDA reserves more addresses than any machine has memory
            _limit(LIMIT_BYTES + 16 * len(opened.model))
        Predictor(opened, threads=threads or None)
    except LeakdetError as error:
        said = {"kind": type(error).__name__, "message": str(error.args[0]), "remedy": error.remedy}
        sys.stdout.write(json.dumps(said) + "\n")
        return REFUSED
    return 0


def _limit(size: int) -> None:
    if sys.platform != "linux":
        return
    import resource

    for what, most in (
        (resource.RLIMIT_AS, size),
        (resource.RLIMIT_CPU, LIMIT_S),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(what)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))

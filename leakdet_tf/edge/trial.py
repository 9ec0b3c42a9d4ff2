"""A bundle tried in a process of its own: a malformed model file can kill the process whose runtime parses it.

The child opens the very files that this process has checked, answers the golden frames and ends. What it survives,
this process may open. That keeps a program alive; it is no wall against an attacker, who may write a file that only
pretends. Signatures are: see :mod:`~leakdet_tf.edge.trust`.
"""

from __future__ import annotations

import json
import subprocess
import sys

from leakdet_tf.core.children import command, environment, signal_name
from leakdet_tf.core.errors import BundleError, ContractError, LeakdetError, MissingExtraError
from leakdet_tf.edge.bundle import Bundle, open_again

LIMIT_S = 120
"""Seconds that a trial may take, by the clock and of the processors."""
LIMIT_BYTES = 4 << 30
"""Address space that a trial may take beyond sixteen times the model file: most of it is reserved and never used."""
_REFUSED = 93  # no runtime's own: the exit status of a child that has written the error
_KINDS = {kind.__name__: kind for kind in (BundleError, ContractError, MissingExtraError)}
_AGAIN = "do not use this bundle; export it anew"


def rehearse(bundle: Bundle, *, threads: int | None = None, limit_s: float = LIMIT_S) -> None:
    """Open the bundle and answer its golden frames in a child process.

    On Linux the child's memory and processor time are limited, elsewhere its time by the clock alone.

    Raises:
        BundleError: the child was killed by a signal, took too long, or refused the bundle; the message names the
            file and the signal, or is the child's.
    """
    place = bundle.folder / bundle.model_file
    line = command(__name__, str(bundle.folder), bundle.digest, str(threads or 0))
    try:
        done = subprocess.run(line, env=environment(), capture_output=True, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired as error:
        raise BundleError(
            f"{place}: its trial took over {limit_s:g} s", remedy="is the machine overloaded? Else export it anew"
        ) from error
    except OSError as error:
        raise BundleError(
            f"{place}: no process can be started to try it ({error.strerror})", remedy="open it without try_first"
        ) from error
    if done.returncode == _REFUSED and done.stdout:
        said = json.loads(done.stdout.splitlines()[-1])
        raise _KINDS.get(said["kind"], BundleError)(said["message"], remedy=said["remedy"])
    if done.returncode < 0:
        raise BundleError(f"{place}: killed its trial process by {signal_name(done.returncode)}", remedy=_AGAIN)
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().rsplit("\n", 1)[-1]
        raise BundleError(
            f"{place}: its trial process failed with status {done.returncode} ({last or 'no message'})", remedy=_AGAIN
        )


def main(folder: str, digest: str, threads: int) -> int:
    """In the child: exit status 0 where the bundle whose files have this digest answers as it should."""
    from leakdet_tf.edge.predictor import Predictor

    try:
        opened = open_again(folder, digest)
        if opened.card.get("kind") != "tensorrt":  # CUDA reserves more addresses than any machine has memory
            _limit(LIMIT_BYTES + 16 * len(opened.model))
        Predictor(opened, threads=threads or None)
    except LeakdetError as error:
        said = {"kind": type(error).__name__, "message": str(error.args[0]), "remedy": error.remedy}
        sys.stdout.write(json.dumps(said) + "\n")
        return _REFUSED
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

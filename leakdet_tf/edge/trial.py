"""A bundle tried in a process of its own: a malformed model file can kill the process whose runtime parses it.

The child opens the very files that this process has checked, answers the golden frames and ends. What it survives,
this process may open. That keeps a program alive; it is no wall against an attacker, who may write a file that only
pretends. Signatures are: see :mod:`~leakdet_tf.edge.trust`.
"""

from __future__ import annotations

import json
import subprocess

from leakdet_tf.core.children import command, environment, signal_name
from leakdet_tf.core.errors import BundleError, ContractError, MissingExtraError
from leakdet_tf.edge.bundle import Bundle

LIMIT_S = 120
"""Seconds that a trial may take, by the clock and of the processors."""
LIMIT_BYTES = 4 << 30
"""Address space that a trial may take beyond sixteen times the model file: most of it is reserved and never used."""
REFUSED = 93
"""The exit status of a child that has written the error: no runtime's own."""
_CHILD = "leakdet_tf.edge.trial_child"
_KINDS = {kind.__name__: kind for kind in (BundleError, ContractError, MissingExtraError)}
_AGAIN = "do not use this bundle; export it again"


def rehearse(bundle: Bundle, *, threads: int | None = None, limit_s: float = LIMIT_S) -> None:
    """Open the bundle and answer its golden frames in a child process.

    On Linux the child's memory and processor time are limited, elsewhere its time by the clock alone.

    Raises:
        BundleError: the child was killed by a signal, took too long, or refused the bundle; the message names the
            file and the signal, or is the child's.
    """
    place = bundle.folder / bundle.model_file
    line = command(_CHILD, str(bundle.folder), bundle.digest, str(threads or 0))
    try:
        done = subprocess.run(line, env=environment(), capture_output=True, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired as error:
        raise BundleError(
            f"{place}: its trial took over {limit_s:g} s", remedy="is the machine overloaded? Else export it again"
        ) from error
    except OSError as error:
        raise BundleError(
            f"{place}: no process can be started to try it ({error.strerror})", remedy="open it without try_first"
        ) from error
    if done.returncode == REFUSED and done.stdout:
        said = json.loads(done.stdout.splitlines()[-1])
        raise _KINDS.get(said["kind"], BundleError)(said["message"], remedy=said["remedy"])
    if done.returncode < 0:
        raise BundleError(f"{place}: killed its trial process by {signal_name(done.returncode)}", remedy=_AGAIN)
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().rsplit("\n", 1)[-1]
        raise BundleError(
            f"{place}: its trial process failed with status {done.returncode} ({last or 'no message'})", remedy=_AGAIN
        )

"""``leakdet-tf sign``: certificates for bundles that are there. Runs on the base install with ``[sign]``."""

from __future__ import annotations

from collections.abc import Sequence

from leakdet_tf.edge import keys, signing
from leakdet_tf.jobs.benchmark import find_bundles
from leakdet_tf.jobs.run.runs import Log


def sign(sources: Sequence[str], *, key: str, replace: bool, log: Log) -> None:
    """Sign bundles one after the other, as ``export`` does; each that is signed is told, with the key.

    Args:
        sources: bundles, and runs, which stand for all that they exported.
        key: file of the private key.
        replace: also replace what another key has signed.
        log: takes a line for each bundle.

    Raises:
        LeakdetError: the key cannot sign, or a bundle is refused; those that were told before it are signed.
    """
    keys.private_key(key)
    for folder in find_bundles(sources):
        log(f"{folder}: signed by {signing.sign(folder, key, replace=replace)}")

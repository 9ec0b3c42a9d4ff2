"""``leakdet-tf sign``."""

from __future__ import annotations

import click


@click.command("sign")
@click.argument("bundles", nargs=-1, required=True, metavar="RUN_OR_BUNDLE...")
@click.option("--key", required=True, metavar="FILE", help="The private key of Ed25519, in PEM.")
@click.option("--replace", is_flag=True, help="Also replace a certificate of another key.")
def command(bundles: tuple[str, ...], key: str, replace: bool) -> None:
    """Sign bundles, so that devices know whose they are.

    For keys that are not on the machine that trains; export.key signs there. Each bundle is checked first, and one that
    is incomplete or changed is refused; nothing of it is run. A run's folder stands for all that it exported. Prints
    each bundle with the SHA-256 of the public key. An encrypted key takes its passphrase from LEAKDET_KEY_PASSPHRASE.
    The base install and the extra [sign] are enough.
    """
    from leakdet_tf.jobs.sign import sign

    sign(bundles, key=key, replace=replace, log=click.echo)

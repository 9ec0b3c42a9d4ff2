"""Weights taken over from another model: matched by name and shape, with an account of what was not."""

from __future__ import annotations

from dataclasses import dataclass

import keras

from leakdet_tf.core.errors import ModelError
from leakdet_tf.models.initialize import named_weights


@dataclass(frozen=True)
class Transferred:
    """What a model took over. ``missing`` says of each weight that it did not, why; ``unused`` what was left over."""

    loaded: int
    total: int
    missing: tuple[str, ...]
    unused: tuple[str, ...]

    def lines(self, source: str) -> list[str]:
        """What to tell the user."""
        text = [f"weights: {self.loaded} of {self.total} taken from {source}"]
        text += [f"  starts from drawn weights: {line}" for line in self.missing]
        if self.unused:
            shown = ", ".join(self.unused[:4]) + (" …" if len(self.unused) > 4 else "")
            text.append(f"  not used: {len(self.unused)} of its weights ({shown})")
        return text


def transfer(source: keras.Model, target: keras.Model, *, where: str = "the other model") -> Transferred:
    """Copy every weight of ``source`` into the one of ``target`` with the same path and shape, in place.

    The path is that of :func:`~leakdet_tf.models.named_weights`; batch-norm statistics are weights too.

    Args:
        source: a model of the same factory, or of one with the same names of layers.
        target: changed in place.
        where: what an error calls the source, such as its file.

    Returns:
        How many were taken, and which were not.

    Raises:
        ModelError: not a single weight fits. ``target`` is unchanged then.
    """
    given = dict(named_weights(source))
    missing, pairs = [], []
    for path, variable in named_weights(target):
        other = given.pop(path, None)
        if other is None:
            missing.append(f"{path} {tuple(variable.shape)}: the other model has none of that name")
        elif tuple(other.shape) != tuple(variable.shape):
            missing.append(f"{path} {tuple(variable.shape)}: there it is {tuple(other.shape)}")
        else:
            pairs.append((variable, other))
    if not pairs:
        raise ModelError(f"{where}: none of its weights fits this model", remedy="is it of the same factory?")
    for variable, other in pairs:
        variable.assign(keras.ops.convert_to_numpy(other))
    return Transferred(len(pairs), len(pairs) + len(missing), tuple(missing), tuple(given))

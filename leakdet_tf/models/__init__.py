"""Model factories: plain functions in the style of ``keras.applications`` that return a ``keras.Model``.

The factory is imported here, not looked up later, because it shares its name with its module: a function bound after
the module was loaded keeps the name, a lazy look-up would lose it to the module. So importing this room loads Keras.
"""

from leakdet_tf.models.initialize import draw_weights
from leakdet_tf.models.unet import unet

__all__ = ["draw_weights", "unet"]

"""What runs on the device: NumPy, Pillow, and LiteRT or ONNX Runtime, no trainer.

>>> from leakdet_tf.edge import Predictor
>>> mask = Predictor("bundle").predict("frame.jpg")
"""

from leakdet_tf.edge.backends.protocol import Backend
from leakdet_tf.edge.bundle import Bundle, open_bundle
from leakdet_tf.edge.counters import Latency, Stats
from leakdet_tf.edge.predictor import Predictor

__all__ = ["Backend", "Bundle", "Latency", "Predictor", "Stats", "open_bundle"]

"""Models: plain functions in the style of ``keras.applications`` that return a ``keras.Model``, and their parts.

Importing this room loads Keras, but none of the packages that only some factories need: those are imported when such
a model is built.
"""

from leakdet_tf.models.classifier import mobilenet_classifier, resnet_classifier
from leakdet_tf.models.detector import yolov8
from leakdet_tf.models.factories import build
from leakdet_tf.models.heads import conv_head
from leakdet_tf.models.initialize import draw_weights, named_weights
from leakdet_tf.models.mobilenets import mobilenet, mobilenet_v2, mobilenet_v3_large, mobilenet_v3_small
from leakdet_tf.models.norms import reestimate_batch_norm
from leakdet_tf.models.pretrained import encoder_source, load_encoder
from leakdet_tf.models.residual import resnet18_v1, resnet34_v1, resnet50_v1
from leakdet_tf.models.resnet import resnet18, resnet34, resnet50
from leakdet_tf.models.runtime import load_model
from leakdet_tf.models.segmenter import unet
from leakdet_tf.models.sm import segmentation_models
from leakdet_tf.models.weight_files import find_weights
from leakdet_tf.models.weight_transfer import transfer

__all__ = [
    "build",
    "conv_head",
    "draw_weights",
    "encoder_source",
    "find_weights",
    "load_encoder",
    "load_model",
    "mobilenet",
    "mobilenet_classifier",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "mobilenet_v3_small",
    "named_weights",
    "reestimate_batch_norm",
    "resnet18",
    "resnet18_v1",
    "resnet34",
    "resnet34_v1",
    "resnet50",
    "resnet50_v1",
    "resnet_classifier",
    "segmentation_models",
    "transfer",
    "unet",
    "yolov8",
]

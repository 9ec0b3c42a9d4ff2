"""Solar modules as a drone's thermal camera sees them, some with hot cells or strings: the generator ``hotspot``.

A picture is built in stages, each with random numbers of its own: view, layout, temperatures, confusers, the label,
faults, camera, noise. So the same seed without its faults is the same picture elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from leakdet_tf.core.errors import DataError, did_you_mean
from leakdet_tf.synth.hotspot import glare
from leakdet_tf.synth.hotspot.faults import LEAST_SIDE, Fault, draw_faults, spread
from leakdet_tf.synth.hotspot.modules import draw_layout, draw_site, temperature
from leakdet_tf.synth.hotspot.thermal import LOOKS, Imager, draw_imager, range_of, show
from leakdet_tf.synth.scenery.regions import boxes_of
from leakdet_tf.synth.scenery.rendered import Parameter, Rendered
from leakdet_tf.synth.scenery.streams import check_frame, check_share, streams_of
from leakdet_tf.synth.scenery.texture import Image32

CLASSES = ("background", "hotspot", "diode")
LABELS = ("faulty", "healthy")
NO_HOTSPOT = 0.25
"""The share of pictures without any fault."""
DIODES = 0.25
"""The share of faults that are strings of cells."""
SPAN = (1.8, 11.0)
"""Metres that the picture's short side sees."""
LEAST_SHOWN = 0.15
"""A fault's contrast is this share of the range that the camera shows, at least, unless told otherwise."""
MOST_SIDE = 0.1
"""Larger boxes cannot be asked for: in many views nothing would be as large."""
_SALT = 7103
_STAGES = ("view", "layout", "heat", "tags", "label", "faults", "spread", "camera", "noise", *glare.TAGS)
"""Stages with random numbers of their own. A stage's place in this list is part of its seed: do not reorder."""


@dataclass(frozen=True)
class Layers:
    """A picture before the camera has seen it.

    Attributes:
        heat: float32 (H, W), kelvin over the mean module.
        faults: what is wrong with the modules.
        touched: bool (H, W), where faults change the temperature at all.
        ends: the temperatures shown black and white, of the scene without its faults.
        imager: what the picture is taken with.
        parameters: everything that was drawn.
    """

    heat: Image32
    faults: tuple[Fault, ...]
    touched: NDArray[np.bool_]
    ends: tuple[float, float]
    imager: Imager
    parameters: dict[str, Parameter]

    @property
    def mask(self) -> NDArray[np.uint8]:
        """uint8 (H, W) class ids."""
        mask = np.zeros(self.heat.shape, np.uint8)
        for fault in self.faults:
            mask[fault.where] = CLASSES.index(fault.kind)
        return mask


def render(
    seed: int,
    size: tuple[int, int],
    *,
    look: str = "iron",
    no_hotspot: float = NO_HOTSPOT,
    diodes: float = DIODES,
    least_side: float = LEAST_SIDE,
    least_shown: float = LEAST_SHOWN,
) -> Rendered:
    """Render one picture of ``size`` (height, width) pixels, each 32..2048. The same seed gives the same bytes.

    Whether there are faults is drawn by itself: nothing else in the picture, nor its range, noise or JPEG quality,
    depends on it. Confusers (:mod:`.glare`), whose tags are in the parameter ``confusers``, are as
    frequent with faults as without.

    The mask is exact. Hotspot is every pixel whose middle lies in a hot cell, or where a spot within a cell has half
    of its contrast or more; diode is every pixel in the cells of a string that is off, which is a third of a module,
    or of two or three such strings side by side. Heat that spreads from there is background. Boxes are those of the
    faults: two never touch, and none has a side below ``least_side``.

    Args:
        seed: 0 or more.
        size: (height, width) in pixels.
        look: ``iron`` or ``rainbow`` (RGB), or ``grey`` (one channel, brighter is warmer).
        no_hotspot: share of the pictures without any fault, 0..1; a few more have none because none fitted.
        diodes: share of the faults that are strings, 0..1.
        least_side: a box's sides are this share of the picture's short one at least, 0..:data:`MOST_SIDE`.
        least_shown: a fault's contrast is this share of the range that the camera shows at least, 0..1.

    Raises:
        DataError: an argument out of range, or a look that does not exist.
    """
    layers = compose(
        seed,
        size,
        look=look,
        no_hotspot=no_hotspot,
        diodes=diodes,
        least_side=least_side,
        least_shown=least_shown,
    )
    return finish(seed, layers)


def compose(
    seed: int,
    size: tuple[int, int],
    *,
    look: str = "iron",
    no_hotspot: float = NO_HOTSPOT,
    diodes: float = DIODES,
    least_side: float = LEAST_SIDE,
    least_shown: float = LEAST_SHOWN,
    faulty: bool = True,
) -> Layers:
    """Everything up to the camera; ``faulty=False`` leaves the faults away and changes nothing else."""
    check_frame(seed, size)
    check_share("no_hotspot", no_hotspot)
    check_share("diodes", diodes)
    check_share("least_shown", least_shown)
    check_share("least_side", least_side, most=MOST_SIDE)
    if look not in LOOKS:
        raise DataError(f"look is {look!r}", remedy=did_you_mean(str(look), LOOKS))
    streams = streams_of(seed, _STAGES, _SALT)
    rng = streams("view")
    span = float(np.exp(rng.uniform(np.log(SPAN[0]), np.log(SPAN[1]))))
    layout = draw_layout(streams("layout"), span)
    site = draw_site(rng, size, span, layout)
    clean, described = temperature(streams("heat"), site)
    tags = glare.draw_tags(streams("tags"))
    for tag in tags:
        clean = glare.put(streams(tag), site, clean, tag)
    imager = draw_imager(streams("camera"))
    ends = range_of(imager, clean)
    faults: list[Fault] = []
    if faulty and not float(streams("label").uniform()) < no_hotspot:
        faults = draw_faults(streams("faults"), site, diodes, least_shown * (ends[1] - ends[0]), least_side)
    rise = spread(streams("spread"), site, faults)
    parameters: dict[str, Parameter] = {"look": look, "confusers": tags, "span_m": span, "range_k": list(ends)}
    parameters |= {"module_m": list(layout.module), "module_rows": layout.rows, **described, **imager.parameters()}
    parameters |= {
        "has_hotspot": bool(faults),
        "hotspots": sum(fault.kind == "hotspot" for fault in faults),
        "diodes": sum(fault.kind == "diode" for fault in faults),
        "contrasts_k": [fault.contrast for fault in faults],
    }
    return Layers(np.asarray(clean + rise, np.float32), tuple(faults), rise > 0, ends, imager, parameters)


def finish(seed: int, layers: Layers) -> Rendered:
    """Show layers with the camera that ``seed`` drew for them."""
    noise = streams_of(seed, _STAGES, _SALT)("noise")
    image = show(noise, layers.imager, layers.heat, layers.ends, str(layers.parameters["look"]))
    mask = layers.mask
    label = LABELS[0] if layers.faults else LABELS[1]
    return Rendered(image, mask, layers.parameters, CLASSES, (label,), boxes_of(mask, CLASSES))

"""The table ``[train]`` of an experiment file, and its stages."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from leakdet_tf.config.fields import Count, Positive, Table, Text


class Stage(Table):
    """One of several stages of training, one after the other: `[[train.stage]]`. What it leaves out is `[train]`'s."""

    epochs: Positive = Field(description="Passes over the training pictures in this stage.")
    train: list[Text] = Field(
        min_length=1,
        description="Groups of layers that learn: `encoder`, `decoder`, `head`, any beginning of layers' names up to "
        "an `_` (`encoder_stage4`), or `all`. The others are frozen, the statistics of their batch norms too.",
    )
    learning_rate: Annotated[float, Field(gt=0)] | None = Field(default=None, description="As in `[train]`.")
    warmup: Count | None = Field(default=None, description="As in `[train]`.")


class Train(Table):
    """How weights are changed."""

    backend: Literal["tensorflow", "jax", "torch", "auto"] = Field(
        default="tensorflow",
        description="What Keras computes with while it trains and answers; the initial weights are the same. `jax` and "
        "`torch` take the extra of their name. `auto` measures those that are installed, for some minutes before "
        "training, and takes the fastest. Files for devices are made by TensorFlow from every one's weights.",
    )
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = Field(
        default="float32",
        description="What layers compute in; weights, losses and the finished model are float32 always. The mixed ones "
        "are for GPUs, and `mixed_bfloat16` for CPUs with such instructions too (`leakdet-tf doctor` names them): "
        "without them it is many times slower. `mixed_float16` scales the loss, so that small gradients do not vanish.",
    )
    xla: bool = Field(
        default=False,
        description="Have XLA compile TensorFlow's steps as a whole; the first one waits for the compiler. On a CPU a "
        "U-Net's steps take less processor time so, a YOLOv8's more: measure yours. On a GPU it takes `deterministic = "
        "false`, else the log says that it does nothing. JAX always does so; torch has no XLA.",
    )
    epochs: Positive = Field(
        default=20, description="Most passes over the training pictures; `[[train.stage]]` tables have their own."
    )
    batch_size: Positive = Field(default=8, description="Pictures per step.")
    accumulate: Positive = Field(
        default=1,
        description="Steps whose gradients are averaged into one change of the weights: 8 steps of 4 pictures learn as "
        "one of 32 does, in the memory of 4; batch norms, and a detector's losses, still see 4 at a time. `warmup` "
        "counts changes. One may span two epochs; what is left over when a stage ends is dropped.",
    )
    learning_rate: Annotated[float, Field(gt=0)] = Field(default=1e-4, description="Adam's step size.")
    weight_decay: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.0,
        description="Share of its weight, times the step size, that every kernel loses at each step (AdamW, arXiv "
        "1711.05101); biases and batch norms keep theirs.",
    )
    schedule: Literal["constant", "cosine"] = Field(
        default="constant",
        description="`cosine` lets the step size fall to a hundredth over the epochs, after `warmup` steps of rise.",
    )
    warmup: Count = Field(default=0, description="Steps in which the step size rises from a hundredth to its value.")
    loss: list[Text] = Field(
        default=[],
        description="Losses that are added up: `cross_entropy`, `focal`, and to segment `dice`, `jaccard`, or "
        "`package.module:function`. Empty: `cross_entropy`, to segment with `dice`. To detect it is `box` (complete "
        "IoU), `class` (binary cross-entropy) and `edges` (distribution focal), and cannot be changed.",
    )
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="To classify: share of a label's certainty that is spread over all classes."
    )
    loss_weights: list[Annotated[float, Field(gt=0)]] = Field(
        default=[],
        description="Factor of each loss, in their order; empty: 1 each, to detect 7.5, 0.5 and 1.5.",
    )
    class_weights: Literal["none", "pixels", "pictures"] | list[Annotated[float, Field(ge=0)]] = Field(
        default="none",
        description="How much each class counts in the losses: a list in the order of `task.classes`; `none`: alike; "
        "`pixels`, or to classify `pictures`: by one over the square root of how many of them train. Their mean is "
        "made 1.",
    )
    focal_gamma: Annotated[float, Field(ge=0, le=10)] = Field(
        default=2.0, description="Exponent of the focal loss; 0 is cross-entropy."
    )
    patience: Count = Field(
        default=8,
        description="Epochs without a better validation mean IoU (to classify: mean F1; to detect: mAP) before "
        "training, or its stage, stops; 0 never stops early.",
    )
    deterministic: bool = Field(
        default=True,
        description="Two trainings of the same end in the same weights: on a CPU TensorFlow then computes a step's "
        "operations one after the other (each on all cores; with `xla` it does so anyway), which leaves .92 "
        "of a U-Net's pictures/s; on a GPU it takes kernels that give the same sums each time, whose cost was not "
        "measured. `false` allows others. Of JAX and torch nothing is asked.",
    )
    checkpoint_every: Positive = Field(
        default=1,
        description="Epochs from one checkpoint to the next. Between them best and last model are kept in memory, and "
        "written when training ends; a kill -9 or a power cut loses them, and `--resume` repeats those epochs.",
    )
    checkpoint_seconds: Count = Field(
        default=0, description="Least seconds from an epoch's checkpoint to the next one's."
    )
    checkpoint_steps: Count = Field(
        default=0,
        description="Steps from one checkpoint within an epoch to the next, for epochs of hours: a kill -9 or a power "
        "cut then costs no more than these, and before an epoch's first one what `checkpoint_every` and "
        "`checkpoint_seconds` kept in memory. 0: within an epoch there is one only where Ctrl-C or SIGTERM ended it.",
    )
    keep: Positive = Field(
        default=3,
        description="Newest checkpoints that stay, and with them those of the epochs that they call the best. Where "
        "one is damaged, `--resume` takes the one before; of `keep = 1` there may be none.",
    )
    loss_limit: Annotated[float, Field(ge=0)] = Field(
        default=100.0,
        description="Training stops when ten steps in a row have a loss above so many times the first step's (or 1, if "
        "that is less): it has exploded. 0 never stops it; a loss that is NaN or infinite always does.",
    )
    stage: list[Stage] = Field(default=[], description="Stages of training, such as a warm-up of the head alone.")

    @model_validator(mode="after")
    def _can_compile(self) -> Train:
        if self.xla and self.backend in ("torch", "auto"):
            raise ValueError('xla: is for backend = "tensorflow" alone')
        return self

    @property
    def total_epochs(self) -> int:
        """Most epochs of all stages together."""
        return sum(stage.epochs for stage in self.stage) or self.epochs

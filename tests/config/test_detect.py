"""What an experiment file may say of boxes, and what it may not."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from leakdet_tf.config.schema import Experiment
from leakdet_tf.core.tasks import task_named


def experiment(**tables: Any) -> Experiment:
    plain: dict[str, Any] = {
        "name": "spots",
        "task": {"kind": "detect", "classes": ["hotspot"]},
        "data": {"root": "data/spots", "labels": "yolo", "inputs": {"image": {"size": [64, 64]}}},
        "model": {"factory": "yolov8"},
    }
    for name, table in tables.items():
        plain[name] = plain.get(name, {}) | table
    return Experiment.model_validate(plain)


def test_one_class_and_no_values_are_enough() -> None:
    found = experiment()
    assert task_named(found.task.kind).LOSSES == ("box", "class", "edges")
    assert found.data.sources[0].of_boxes
    assert found.data.sources[0].annotations == "labels"


@pytest.mark.parametrize("labels", ["yolo", "voc", "coco.json"])
def test_values_may_ignore_and_drop(labels: str) -> None:
    values = {"0": "hotspot", "1": "background", "2": "ignore"}
    assert experiment(data={"labels": labels, "values": values}).data.values == values


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({"data": {"labels": "folders"}}, "labels of whole pictures"),
        ({"data": {"labels": "", "values": {"0": "hotspot"}}}, 'missing; write "yolo"'),
        ({"data": {"values": {"0": "spot"}}}, "'spot' is not among"),
        ({"train": {"loss": ["dice"]}}, "train.loss"),
        ({"train": {"class_weights": "pixels"}}, "train.class_weights"),
        ({"train": {"loss_weights": [1.0, 2.0]}}, "2 factors for 3 losses"),
        ({"task": {"kind": "classify", "classes": ["a", "b"]}}, "'yolo' holds boxes"),
        ({"task": {"kind": "segment", "classes": ["a", "b"]}}, "data.labels"),
        ({"task": {"kind": "segment", "classes": ["a"]}}, "two or more"),
        ({"evaluate": {"max_boxes": 0}}, "max_boxes"),
        ({"evaluate": {"nms_iou": 1.5}}, "nms_iou"),
        ({"export": {"outputs": "cooked"}}, "outputs"),
    ],
)
def test_what_cannot_be_meant_is_refused(tables: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        experiment(**tables)


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({"data": {"augment": {"mosaic": 0.5}}}, "mosaic"),
        ({"data": {"augment": {"mixup": 0.5}}}, "mosaic and mixup"),
        ({"export": {"outputs": "final"}}, "export.outputs"),
    ],
)
def test_what_is_a_detectors_is_refused_elsewhere(tables: dict[str, Any], said: str) -> None:
    labels = {"labels": "folders"}
    given = {"task": {"kind": "classify", "classes": ["a", "b"]}} | tables
    given["data"] = labels | given.get("data", {})
    with pytest.raises(ValidationError, match=said):
        experiment(**given)

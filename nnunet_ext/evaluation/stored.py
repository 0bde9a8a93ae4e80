"""What metrics.json and nnU-Net's summary.json must look like to be read."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from nnunet_ext.common.nnunet_files import HIGHEST
from nnunet_ext.common.shapes import Shape, Text

LARGEST = 10**15  # voxels, and whatever is measured of them: sums of such numbers are exact


def _measured(value: float) -> float:
    if abs(value) > LARGEST:
        raise ValueError(f"{value:g} is larger than anything that can be measured")
    return value


def _whole(value: Any) -> Any:
    """Make a whole number of a float that is one, as other programs write them."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Number = Annotated[float, AfterValidator(_measured)]
Whole = Annotated[int, Field(ge=0, le=LARGEST), BeforeValidator(_whole)]
Label = Annotated[int, Field(ge=0, le=HIGHEST)]


class Measured(Shape):
    """The metrics of one label or region of a case, by nnU-Net's names or ours; None is undefined."""

    __pydantic_extra__: dict[str, Number | None] = Field(init=False)

    TP: Whole
    FP: Whole
    FN: Whole
    TN: Whole


Metrics = dict[str, Measured]  # by nnU-Net's name of a label or region


class Info(Shape):
    """Where an evaluation comes from, see `Evaluation`; every key may be missing."""

    name: Text | None = None
    predictions: Text | None = None
    references: Text | None = None
    prediction_files: dict[str, Text] = Field(default_factory=dict)
    file_ending: Text = ""
    images: Text | None = None
    nsd_tolerance: Number | None = None
    lesion_iou: Number | None = None
    prompts: Text | None = None
    trainer: Text | None = None
    plans: Text | None = None
    configuration: Text | None = None
    fold: int | str | list[int | str] | None = None
    seed: int | str | None = None
    trained_cases: list[Text] = Field(default_factory=list)
    dataset: Text | None = None
    command: Text | None = None
    versions: dict[str, Any] | None = None


class UnitNames(Shape):
    """The units of lengths and volumes."""

    length: Literal["mm", "px"]
    volume: Literal["ml", "mm2", "px"]


class OwnRecord(Shape):
    """What metrics.json has and summary.json has not."""

    format: int
    units: UnitNames
    structures: Annotated[dict[str, Annotated[list[Label], Field(min_length=1)]], Field(min_length=1)]
    info: Info
    notes: list[str] = Field(default_factory=list)


class MeasuredCase(Shape):
    """The metrics of a case in metrics.json."""

    case: Annotated[Text, Field(min_length=1)]
    metrics: Metrics


class MetricsFile(Shape):
    """Our metrics.json."""

    metric_per_case: list[MeasuredCase]
    nnunet_ext: OwnRecord


class SummaryMetrics(Measured):
    """The metrics of one label or region of a case in summary.json; NaN is undefined."""

    Dice: Number
    IoU: Number


class SummaryCase(Shape):
    """The metrics of a case in summary.json."""

    prediction_file: Annotated[Text, Field(min_length=1)]
    metrics: Annotated[dict[str, SummaryMetrics], Field(min_length=1)]


class SummaryFile(Shape):
    """nnU-Net's summary.json."""

    metric_per_case: Annotated[list[SummaryCase], Field(min_length=1)]

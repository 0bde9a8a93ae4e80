"""What a paper states for a model: in a benchmark's matrix, in a report, next to what came out here."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

from nnunet_ext.common.text import meant, some
from nnunet_ext.metrics.definitions import BY_KEY


def _known(metrics: dict[str, float]) -> dict[str, float]:
    if unknown := [key for key in metrics if key not in BY_KEY]:
        known = some(BY_KEY, None)
        raise ValueError(
            "\n".join(f"has {key!r}, which is not a metric{meant(key, BY_KEY)}; known are {known}" for key in unknown)
        )
    return metrics


class Published(BaseModel):
    """Figures of one model as a paper prints them.

    Args:
        row: the name of the model that they stand next to.
        metrics: key of a metric -> the value as printed, ratios as fractions.
        source: where they are printed.
        note: how the paper's protocol differs from this one.
        structure: the structure that they belong to; the first by default.
        dataset: id of the dataset that they belong to; None where there is only one.

    Raises:
        ValueError: a metric is not known, or a value has another type.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    row: str
    metrics: Annotated[dict[str, float], AfterValidator(_known)]
    source: str
    note: str = ""
    structure: str | None = None
    dataset: int | None = None

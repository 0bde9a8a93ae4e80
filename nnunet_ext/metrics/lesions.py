"""Lesions: how many are found, how many are made up.

A lesion is a connected component, with neighbours by faces, edges and corners. Predicted and reference lesions are
matched one to one, and only where they overlap enough: a mask over everything finds a single lesion, if that is large
enough, and noise finds none. By the lenient rule that many papers use (`touch`), a lesion is found where it shares at
least one voxel with the other mask, which both of these get full marks for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
from scipy import ndimage, sparse

from nnunet_ext.metrics import DIAMETERS, LESION_IOU
from nnunet_ext.metrics.overlap import boolean, ratio

CC3D = find_spec("cc3d") is not None  # it has no wheels for some platforms


@dataclass(frozen=True, kw_only=True)
class Lesions:
    """Counts of lesions, and the ratios that are defined on them.

    >>> import numpy as np
    >>> lesions = Lesions.of(np.array([[1, 0, 0, 0, 1]]), np.array([[1, 1, 0, 0, 0]]))
    >>> lesions.precision, lesions.recall
    (0.5, 1.0)

    Args:
        prediction, reference: numbers of lesions in each mask.
        matched: number of pairs of a predicted and a reference lesion, each lesion in one pair at most.
        prediction_touched: number of predicted lesions that touch a reference lesion.
        reference_touched: number of reference lesions that a prediction touches. It differs from the former: one
            prediction may touch several lesions, and the other way round.
        by_size: numbers of small, medium and large reference lesions, and of those among them that are matched; None
            where there is no spacing.
    """

    prediction: int
    reference: int
    matched: int
    prediction_touched: int
    reference_touched: int
    by_size: tuple[tuple[int, int], ...] | None = None

    @classmethod
    def of(
        cls,
        prediction: np.ndarray,
        reference: np.ndarray,
        *,
        iou: float = LESION_IOU,
        spacing: Sequence[float] | None = None,
    ) -> Lesions:
        """Count the lesions of two masks of one shape, with any number of axes; non-zero is foreground.

        Of all ways to match, one with the most pairs counts, and among these the one with the greatest sum of IoU.

        Args:
            iou: smallest intersection over union of a predicted and a reference lesion that may be matched.
            spacing: distance between voxels along each axis in mm, for sizes; None where there is none.

        Raises:
            ValueError: the shapes differ.
        """
        p, r = boolean(prediction, reference)
        (p_labels, n_p), (r_labels, n_r) = components(p), components(r)
        p_sizes, r_sizes = _sizes(p_labels, p, n_p), _sizes(r_labels, r, n_r)
        rows, columns, shared = _common(p_labels, r_labels, p & r, n_p, n_r)
        near = (ious := shared / (p_sizes[rows] + r_sizes[columns] - shared)) >= iou
        found = np.zeros(n_r, bool)
        found[_matched(rows[near], columns[near], ious[near])] = True
        by_size = None
        if spacing is not None:
            classes = np.digitize(_diameters(r_sizes, spacing), DIAMETERS)
            numbers, of_found = (np.bincount(c, minlength=len(DIAMETERS) + 1) for c in (classes, classes[found]))
            by_size = tuple(zip(numbers.tolist(), of_found.tolist(), strict=True))
        return cls(
            prediction=n_p,
            reference=n_r,
            matched=int(found.sum()),
            prediction_touched=len(np.unique(rows)),
            reference_touched=len(np.unique(columns)),
            by_size=by_size,
        )

    @property
    def precision(self) -> float:
        """Matched / predicted lesions: undefined for an empty prediction."""
        return ratio(self.matched, self.prediction)

    @property
    def recall(self) -> float:
        """Matched / reference lesions: undefined for an empty reference."""
        return ratio(self.matched, self.reference)

    @property
    def f1(self) -> float:
        """Harmonic mean of both: undefined where both masks are empty, 0 where one is, or where nothing is found."""
        return ratio(2 * self.matched, self.prediction + self.reference)

    @property
    def false_positives(self) -> int:
        """The number of predicted lesions without a match."""
        return self.prediction - self.matched

    @property
    def precision_touch(self) -> float:
        """Predicted lesions that touch one of the reference's / predicted lesions."""
        return ratio(self.prediction_touched, self.prediction)

    @property
    def recall_touch(self) -> float:
        """Reference lesions that are touched / reference lesions."""
        return ratio(self.reference_touched, self.reference)

    @property
    def f1_touch(self) -> float:
        """Harmonic mean of these two."""
        return harmonic_mean(self.precision_touch, self.recall_touch)

    def number(self, size: int) -> float:
        """Return the number of reference lesions of a size, 0 for small; NaN where sizes are unknown."""
        return math.nan if self.by_size is None else self.by_size[size][0]

    def recall_of(self, size: int) -> float:
        """Return the recall of a size; NaN where sizes are unknown, or there is none."""
        return math.nan if self.by_size is None else ratio(self.by_size[size][1], self.by_size[size][0])


def harmonic_mean(precision: float, recall: float) -> float:
    """Return F1: undefined where both are, 0 where one of them is 0."""
    return 0.0 if 0 in (precision, recall) else 2 * precision * recall / (precision + recall)


def components(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Label the connected components of a boolean mask, by connected-components-3d where it is installed.

    Returns:
        Labels of the mask's shape, from 1 in no particular order, 0 is background; and how many there are.
    """
    if CC3D and mask.ndim in (2, 3):
        import cc3d

        # version 4.1.1 is wrong, mostly without a word, on views, and on booleans in images and single lines
        labels, number = cc3d.connected_components(
            np.ascontiguousarray(mask, dtype=np.uint8),
            connectivity=8 if mask.ndim == 2 else 26,
            return_N=True,
            out_dtype=np.uint32,
        )
    else:
        labels, number = ndimage.label(mask, np.ones((3,) * mask.ndim))
    return labels, int(number)


def _sizes(labels: np.ndarray, mask: np.ndarray, number: int) -> np.ndarray:
    """Return the number of voxels of each component."""
    if number == 1:
        return np.array([np.count_nonzero(mask)])
    return np.bincount(labels[mask], minlength=number + 1)[1:]


def _common(
    one: np.ndarray, other: np.ndarray, both: np.ndarray, n: int, m: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the pairs of components, counted from 0, that have voxels in common, and how many.

    Args:
        one, other: labels of `n` and of `m` components.
        both: where both have one.
    """
    if n == m == 1:
        shared = np.array([np.count_nonzero(both)])
        first = np.zeros(int(shared[0] > 0), int)
        return first, first, shared[shared > 0]
    rows, columns = one[both] - 1, other[both] - 1
    found = sparse.coo_array((np.ones(rows.size, np.int64), (rows, columns)), (n, m)).tocsr().tocoo()
    return found.row, found.col, found.data


def _matched(rows: np.ndarray, columns: np.ndarray, ious: np.ndarray) -> np.ndarray:
    """Return the columns that are matched with a row, one to one: as many as possible, then those of greatest IoU.

    Args:
        rows, columns: pairs that may be matched.
        ious: of these pairs.
    """
    (p, rows), (r, columns) = (np.unique(ends, return_inverse=True) for ends in (rows, columns))
    if p.size == r.size == ious.size:  # nobody has a choice
        return r
    # every row and column has a stand-in on the other side, with which it is matched if it stays alone
    pairs = sparse.coo_array((min(p.size, r.size) + 1 + ious, (rows, columns)), (p.size, r.size))
    alone = 2.0**-20
    stand_ins = sparse.coo_array((np.full(rows.size, alone), (columns, rows)), (r.size, p.size))
    graph = sparse.block_array(
        [[pairs, alone * sparse.eye_array(p.size)], [alone * sparse.eye_array(r.size), stand_ins]], format="csr"
    )
    ends = sparse.csgraph.min_weight_full_bipartite_matching(graph, maximize=True)[1][: p.size]
    found: np.ndarray = r[ends[ends < r.size]]
    return found


def _diameters(voxels: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """Return the diameters of the balls (circles in two axes) that are as large as lesions of so many voxels."""
    n = len(spacing)
    volumes = voxels * math.prod(spacing)
    diameters: np.ndarray = 2 * (volumes * math.gamma(n / 2 + 1)) ** (1 / n) / math.sqrt(math.pi)
    return diameters

"""How a NIfTI file that cannot be linked is written: picklable, so that worker processes can do it."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from nnunet_ext.dataset_conversion.voxels import Voxels

GZIP_LEVEL = 1  # higher levels cost far more time than they save in bytes, on labels and on CT


@dataclass(frozen=True, kw_only=True)
class RewriteImage:
    """The source's voxels, bit for bit, behind `header`."""

    source: Voxels
    header: bytes
    compress: bool

    @property
    def key(self) -> str:
        return _key("image", self.header, self.compress)

    def __call__(self, target: Path) -> None:
        _write(target, self.header, (chunk.data for chunk in self.source.chunks()), self.compress)


@dataclass(frozen=True, kw_only=True)
class WriteLabel:
    """8-bit labels: `mapping` gives the new value of each old one."""

    source: Voxels
    header: bytes
    compress: bool
    mapping: tuple[tuple[int, int], ...]

    @property
    def key(self) -> str:
        return _key("label", self.header, self.compress, self.mapping)

    def __call__(self, target: Path) -> None:
        _write(target, self.header, self._mapped(), self.compress)

    def _mapped(self) -> Iterator[memoryview]:
        kept = [(before, after) for before, after in self.mapping if after]
        for old in self.source.labels():
            first, *others = (_where(old, before, after) for before, after in kept)
            for other in others:
                first |= other  # a voxel has one value, so at most one of them is not zero
            yield first.data


def _where(old: np.ndarray, before: int, after: int) -> np.ndarray:
    hits = (old == before).view(np.uint8)
    return hits if after == 1 else hits * np.uint8(after)


def _key(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _write(target: Path, header: bytes, pieces: Iterable[memoryview], compress: bool) -> None:
    with _open(target, compress) as stream:
        stream.write(header)
        for piece in pieces:
            stream.write(piece)


@contextmanager
def _open(target: Path, compress: bool) -> Iterator[BinaryIO]:
    with target.open("wb") as raw:
        if not compress:
            yield raw
            return
        # no name and no time inside, so that the same input gives the same bytes
        with gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=GZIP_LEVEL, mtime=0) as stream:
            yield stream

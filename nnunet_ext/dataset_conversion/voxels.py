"""Voxels of one file, read in pieces, compressed or not. Workers import this: numpy, and nothing heavier."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from nnunet_ext.common.errors import InputError

CHUNK_BYTES = 1 << 19  # small enough to stay in a core's cache between reading, comparing and writing


@dataclass(frozen=True, kw_only=True)
class Voxels:
    """`count` numbers of `dtype` from byte `offset` of the (decompressed) file; value = number * slope + inter."""

    path: Path
    compressed: bool
    offset: int
    dtype: np.dtype
    count: int
    slope: float = 1.0
    inter: float = 0.0

    @property
    def size(self) -> int:
        """Bytes, decompressed."""
        return self.count * self.dtype.itemsize

    @property
    def scaled(self) -> bool:
        return (self.slope, self.inter) != (1.0, 0.0)

    def check_length(self) -> None:
        """InputError when voxels are missing: by file length, or by gzip trailer and, if that differs, by reading."""
        needed = self.offset + self.size
        with self.path.open("rb") as raw:
            found = raw.seek(0, os.SEEK_END)
            if not self.compressed:
                if found < needed:
                    raise InputError(f"{self.path}: is truncated ({found:,} of {needed:,} bytes); download it again.")
                return
            raw.seek(-4, os.SEEK_END)
            trailer = int.from_bytes(raw.read(4), "little")
        if trailer != needed % (1 << 32):  # truncated, or in several gzip members: only reading tells
            for _ in self.chunks():
                pass

    def chunks(self, chunk_bytes: int = CHUNK_BYTES) -> Iterator[np.ndarray]:
        """Stored numbers in file order, in pieces, each valid until the next one; InputError when some are missing."""
        buffer = memoryview(bytearray(chunk_bytes))
        left = self.size
        try:
            with self.path.open("rb", buffering=0) as raw:
                stream = gzip.GzipFile(fileobj=raw) if self.compressed else raw
                stream.seek(self.offset)
                while left:
                    piece = buffer[: min(chunk_bytes, left)]
                    _fill(stream, piece)
                    left -= len(piece)
                    yield np.frombuffer(piece, self.dtype)
                if self.compressed:  # at its end gzip compares the checksum
                    while stream.read(chunk_bytes):
                        pass
        except (EOFError, OSError, zlib.error) as e:
            raise InputError(f"{self.path}: is truncated or damaged ({e or 'end of file'}); download it again.") from e

    def labels(self) -> Iterator[np.ndarray]:
        """Values in pieces, rid of the rounding error that scaling brings: 1.9999999 is 2, 1.5 stays."""
        for stored in self.chunks():
            if not self.scaled:
                yield stored
                continue
            values = stored * self.slope + self.inter
            whole = np.rint(values)
            yield np.where(np.abs(values - whole) < 1e-4, whole, values)


def _fill(stream: BinaryIO, piece: memoryview) -> None:
    done = 0
    while done < len(piece):
        count = stream.readinto(piece[done:])
        if not count:
            raise EOFError("end of file before the last voxel")
        done += count

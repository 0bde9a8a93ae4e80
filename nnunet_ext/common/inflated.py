"""What is in a gzip file or a zlib stream, its checksum compared, and whether anything follows it."""

from __future__ import annotations

import io
import zlib
from typing import Any, BinaryIO

MAGIC = b"\x1f\x8b"
_BLOCK = 1 << 16
_EITHER = zlib.MAX_WBITS | 32  # gzip or zlib, as it says itself


class Inflated(io.RawIOBase):
    """Reads the content of a gzip file, all its members, or of a zlib stream; at the end its checksum is compared.

    Other bytes that follow the last one are left alone, as by zlib's own reader, and with it ITK's: Python's takes
    them for damage. `followed` says afterwards that they are there; padding with zeros does not count.

    Raises:
        EOFError: the file ends too early.
        zlib.error: it is damaged.
    """

    def __init__(self, compressed: BinaryIO) -> None:
        self.followed = False
        self._compressed = compressed
        self._member: Any = zlib.decompressobj(_EITHER)
        self._ahead = b""  # of the next member
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ended:
            block = self._member.unconsumed_tail or self._ahead or self._compressed.read(_BLOCK)
            self._ahead = b""
            content: bytes = self._member.decompress(block, len(buffer))
            if self._member.eof and not content:
                self._begin_next(self._member.unused_data)
            elif content:
                buffer[: len(content)] = content
                return len(content)
            elif not block:
                raise EOFError("end of file")
        return 0

    def _begin_next(self, rest: bytes) -> None:
        while len(rest := rest.lstrip(b"\0")) < len(MAGIC) and (more := self._compressed.read(_BLOCK)):
            rest += more
        self._ended = not rest.startswith(MAGIC)
        self.followed = self._ended and bool(rest)
        self._member = zlib.decompressobj(_EITHER)
        self._ahead = rest

"""Writer of reproducible .tar.gz files: no timestamps, no owner, no compression."""

import struct
import tarfile
import zlib
from collections.abc import Iterable
from typing import BinaryIO

LARGEST_BLOCK = 65535  # bytes: the maximum of deflate's 16-bit length


class StoredTarGz:
    """A tar file in a gzip container of stored blocks (RFC 1951, 3.2.4), independent of the zlib version.

    Args:
        file: open for writing in binary; it stays open.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._pending, self._crc, self._size = file, bytearray(), 0, 0
        file.write(bytes([0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 255]))  # deflate, no name, time 0, unknown system

    def add(self, name: str, size: int, parts: Iterable[bytes]) -> None:
        """Append a member of `size` bytes from its parts, so that it need not fit in memory."""
        member = tarfile.TarInfo(name)  # by default, owner and time are zero or empty
        member.size = size
        self._write(member.tobuf(tarfile.USTAR_FORMAT))
        written = 0
        for part in parts:
            self._write(part)
            written += len(part)
        assert written == size, f"{name}: {written} bytes instead of {size}"
        self._write(bytes(-size % tarfile.BLOCKSIZE))

    def close(self) -> None:
        """Write the end of the tar file and of the gzip container."""
        self._write(bytes(2 * tarfile.BLOCKSIZE))
        self._block(final=True)
        self._file.write(struct.pack("<II", self._crc, self._size & 0xFFFFFFFF))

    def _write(self, data: bytes) -> None:
        self._crc, self._size = zlib.crc32(data, self._crc), self._size + len(data)
        self._pending += data
        while len(self._pending) > LARGEST_BLOCK:  # close() writes the last block and marks it as final
            self._block(final=False)

    def _block(self, *, final: bool) -> None:
        block = self._pending[:LARGEST_BLOCK]
        del self._pending[:LARGEST_BLOCK]
        self._file.write(struct.pack("<BHH", final, len(block), len(block) ^ 0xFFFF) + block)

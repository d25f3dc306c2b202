"""PNG files of small pictures, for pages that hold their pictures themselves."""

import base64
import struct
import zlib

import numpy as np
from numpy.typing import NDArray

__all__ = ["png_bytes", "png_link"]


def png_bytes(picture: NDArray[np.uint8]) -> bytes:
    """A picture (y, x, 3) of red, green and blue as a PNG file.

    Examples
    --------
    >>> png_bytes(np.zeros((2, 2, 3), np.uint8))[1:4]
    b'PNG'
    """
    height, width, _ = picture.shape
    # Each row begins with the number of its filter: 0, none.
    rows = np.concatenate([np.zeros((height, 1), np.uint8), picture.reshape(height, -1)], axis=1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )


def png_link(picture: NDArray[np.uint8]) -> str:
    """The same as an address that holds the file itself."""
    return "data:image/png;base64," + base64.b64encode(png_bytes(picture)).decode()

"""Integers of 1 to 8 bits to bytes and back, in the order that the runtimes expect.

- INT2 and INT4 (LiteRT): two's complement, the first element in the lowest bits of a byte.
- Sign words (Larq Compute Engine): 32 signs of the last axis in an int32, the first in the lowest bit, 1 means -1.
"""

from __future__ import annotations

import numpy as np

from tfqprune.errors import ExportError


def pack(integers: np.ndarray, bits: int) -> bytes:
    """Packs signed integers of 2, 4 or 8 bits, flattened in C order; the last byte is filled up with zeros.

    Raises:
        ExportError: a value does not fit, or the width is none of 2, 4, 8.
    """
    flat = _checked(integers, bits)
    per_byte = 8 // bits
    codes = np.pad(flat & (2**bits - 1), (0, -len(flat) % per_byte)).reshape(-1, per_byte)
    return (codes << (np.arange(per_byte) * bits)).sum(axis=1).astype(np.uint8).tobytes()


def unpack(data: bytes | np.ndarray, bits: int, count: int) -> np.ndarray:
    """The first ``count`` signed integers of packed bytes (int32); the inverse of :func:`pack`."""
    raw = np.frombuffer(bytes(data), dtype=np.uint8).astype(np.int32)
    codes = (raw[:, None] >> (np.arange(8 // bits) * bits)) & (2**bits - 1)
    flat = codes.reshape(-1)[:count]
    return np.where(flat >= 2 ** (bits - 1), flat - 2**bits, flat)


def pack_sign_pairs(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Two arrays of +-1 as one array of 2-bit integers q with q + 0.5 = first + second / 2.

    So sign(q + 0.5) gives ``first`` back, and q + 0.5 - first is half of ``second``.
    """
    return ((2 * np.asarray(first) + np.asarray(second) - 1) // 2).astype(np.int32)


def pack_sign_words(signs: np.ndarray) -> np.ndarray:
    """+-1 of shape [..., n] as int32 words of shape [..., ceil(n / 32)]; a set bit means -1."""
    signs = np.asarray(signs)
    padded = np.pad(signs < 0, [(0, 0)] * (signs.ndim - 1) + [(0, -signs.shape[-1] % 32)])
    words = padded.reshape(*signs.shape[:-1], -1, 32).astype(np.uint64) << np.arange(32, dtype=np.uint64)
    return words.sum(axis=-1, dtype=np.uint64).astype(np.uint32).view(np.int32)


def unpack_sign_words(words: np.ndarray, channels: int) -> np.ndarray:
    """Sign words of the last axis as +-1 of shape [..., channels]; the inverse of :func:`pack_sign_words`."""
    bits = (np.asarray(words).astype(np.int64)[..., None] >> np.arange(32)) & 1
    return 1 - 2 * bits.reshape(*words.shape[:-1], -1)[..., :channels]


def _checked(integers: np.ndarray, bits: int) -> np.ndarray:
    if bits not in (2, 4, 8):
        raise ExportError(f"Expected a width of 2, 4 or 8 bits. Received: {bits}. Use the next larger width.")
    flat = np.asarray(integers).reshape(-1).astype(np.int64)
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    if flat.size and (flat.min() < low or flat.max() > high):
        raise ExportError(
            f"Expected integers from {low} to {high} for {bits} bits. Received: {flat.min()} to {flat.max()}. "
            "Use the next larger width."
        )
    return flat

"""Bit order and widths, with every integer derived by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tflite_export.packing import pack, pack_sign_pairs, pack_sign_words, unpack, unpack_sign_words
from tfqprune.errors import ExportError


@pytest.mark.parametrize(
    ("integers", "bits", "expected"),
    [
        # two's complement codes 10 11 00 01, the first in the lowest bits: 01 00 11 10
        ([-2, -1, 0, 1], 2, [0b01001110]),
        # a fifth element starts a second byte, whose rest is zero
        ([1, 1, 1, 1, -1], 2, [0b01010101, 0b00000011]),
        # 1000 and 0111, the first in the low nibble
        ([-8, 7], 4, [0x78]),
        ([-1, 0, 3], 4, [0x0F, 0x03]),
        ([-128, 127, -1], 8, [0x80, 0x7F, 0xFF]),
    ],
)
def test_pack(integers: list[int], bits: int, expected: list[int]) -> None:
    assert list(pack(np.array(integers), bits)) == expected


@given(st.sampled_from([2, 4, 8]).flatmap(
    lambda bits: st.tuples(st.just(bits), st.lists(st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1), max_size=40))
))  # fmt: skip
def test_unpack_inverts_pack(case: tuple[int, list[int]]) -> None:
    bits, integers = case
    packed = pack(np.array(integers, dtype=int), bits)
    assert len(packed) == -(-len(integers) * bits // 8)
    assert unpack(packed, bits, len(integers)).tolist() == integers


@pytest.mark.parametrize(("integers", "bits"), [([2], 2), ([-3], 2), ([8], 4), ([128], 8)])
def test_values_that_do_not_fit_are_refused(integers: list[int], bits: int) -> None:
    with pytest.raises(ExportError, match=rf"for {bits} bits. Received"):
        pack(np.array(integers), bits)


def test_a_width_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ExportError, match=r"2, 4 or 8 bits. Received: 3"):
        pack(np.array([0]), 3)


def test_sign_pairs() -> None:
    first, second = np.array([1, 1, -1, -1]), np.array([1, -1, 1, -1])
    codes = pack_sign_pairs(first, second)
    assert codes.tolist() == [1, 0, -1, -2]
    decoded = codes + 0.5
    assert np.sign(decoded).tolist() == first.tolist()
    assert (2 * (decoded - np.sign(decoded))).tolist() == second.tolist()


def test_sign_words() -> None:
    assert pack_sign_words(np.array([-1, 1, 1, -1])).tolist() == [0b1001]
    signs = np.ones(33, dtype=int)
    signs[[31, 32]] = -1
    # bit 31 is the sign bit of the word; the 33rd sign opens a second word
    assert pack_sign_words(signs).tolist() == [-(2**31), 1]
    assert pack_sign_words(np.ones((2, 3, 40))).shape == (2, 3, 2)


def test_sign_words_come_back() -> None:
    signs = np.where(np.random.default_rng(0).random((2, 3, 40)) < 0.5, -1, 1)
    np.testing.assert_array_equal(unpack_sign_words(pack_sign_words(signs), 40), signs)

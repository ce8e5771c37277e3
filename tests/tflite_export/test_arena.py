"""Plans of overlapping lifetimes, worked out by hand."""

from __future__ import annotations

from collections.abc import Callable

import tflite_export as te
from tflite_export.arena import arena_bytes, plan


def test_neighbours_in_a_chain_overlap() -> None:
    # a (0-1), b (1-2), c (2-3): a and c share a place
    assert plan([(64, 0, 1), (32, 1, 2), (64, 2, 3)]) == 96


def test_a_shortcut_stays_alive() -> None:
    # the first buffer lives to the end, so all three are alive at operator 2
    assert plan([(64, 0, 3), (32, 1, 2), (64, 2, 3)]) == 160


def test_sizes_are_rounded_up_to_16() -> None:
    assert plan([(1, 0, 0)]) == 16
    assert plan([]) == 0


def test_small_buffers_fill_gaps() -> None:
    # 64 at 0 for 0-1, 48 at 64 for 0-3; then 32 for 2-3 fits at 0 again
    assert plan([(64, 0, 1), (48, 0, 3), (32, 2, 3)]) == 112


def test_arena_of_a_file(exported: Callable[..., te.ExportResult]) -> None:
    # Widest point of the float file: q1's input and output, 8*8*8 and 8*8*16 floats, or q2's, 8*8*16 twice.
    assert arena_bytes(exported("float32", "plain", "2").path) == 4 * (1024 + 1024)


def test_dropped_shapes_are_asked_from_the_runtime(exported: Callable[..., te.ExportResult]) -> None:
    # q2 decodes 3*3*16*16 weights in three steps, two alive at a time, beside its input of 8*8*16 floats.
    assert arena_bytes(exported("packed", "plain", "2").path) == 4 * (2 * 2304 + 1024)

"""Ids of channels: which may be read along any axis."""

from __future__ import annotations

import numpy as np

from tfqprune.layers.space import ChannelSpace


def test_only_tensors_that_are_never_cut_are_rigid() -> None:
    space = ChannelSpace()
    image, conv, other = space.mint_frozen(3, "image", "input"), space.mint(2, "conv"), space.mint_frozen(2, "x", "in")
    space.freeze(conv, "found out later, so another layer may have been told that it can be cut")
    for ids in (image, image[1:], image[::-1], np.concatenate([other, image])):
        assert space.is_rigid(ids)
    for ids in (conv, np.concatenate([image, conv]), np.concatenate([conv, image]), image[:0]):
        assert not space.is_rigid(ids)

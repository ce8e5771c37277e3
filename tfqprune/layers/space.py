"""Channel ids: every channel of every tensor gets a number, and numbers can be tied together.

Ids that are tied live and die together; scipy finds the connected components later.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Channels:
    """The channel ids of one tensor.

    Attributes:
        axis: the axis the ids run along (batch counts as 0), or None for a tensor without channels
            (a scalar per sample, a shape tensor).
        ids: int64 array, one id per position of that axis.
    """

    axis: int | None
    ids: np.ndarray

    @staticmethod
    def none() -> Channels:
        return Channels(None, np.empty(0, np.int64))

    def __len__(self) -> int:
        return len(self.ids)


@dataclass
class ChannelSpace:
    """All ids of a model, what ties them and what freezes them."""

    size: int = 0
    blocks: list[tuple[int, int, str]] = field(default_factory=list)  # (first id, count, minted by)
    ties: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    frozen: list[tuple[np.ndarray, str]] = field(default_factory=list)
    partitions: list[list[np.ndarray]] = field(default_factory=list)
    rigid: set[int] = field(default_factory=set)  # ids that were frozen when minted

    def mint_frozen(self, count: int, source: str, reason: str) -> np.ndarray:
        """New ids that can never be removed: a model's input, an opaque layer's output."""
        ids = self.mint(count, source)
        self.freeze(ids, reason)
        self.rigid.update(ids.tolist())
        return ids

    def is_rigid(self, ids: np.ndarray) -> bool:
        """Whether these are the ids of a tensor that is never cut along any axis."""
        return len(ids) > 0 and int(ids[0]) in self.rigid and self.rigid.issuperset(ids.tolist())

    def mint(self, count: int, source: str) -> np.ndarray:
        """New ids for ``count`` channels that ``source`` (a layer's name) brings into being."""
        ids = np.arange(self.size, self.size + count, dtype=np.int64)
        self.blocks.append((self.size, count, source))
        self.size += count
        return ids

    def tie(self, first: np.ndarray, second: np.ndarray) -> None:
        """Says that ``first[i]`` and ``second[i]`` live and die together, for each i."""
        if len(first) != len(second):
            raise ValueError(f"Expected as many ids on both sides of a tie. Received: {len(first)} and {len(second)}.")
        if len(first) and first is not second:
            self.ties.append((first, second))

    def freeze(self, ids: np.ndarray, reason: str) -> None:
        """Says that none of these ids may be removed, and why (a sentence a person understands)."""
        if len(ids):
            self.frozen.append((ids, reason))

    def partition(self, parts: list[np.ndarray]) -> None:
        """Says that each part must keep a unit: the parts become separate groups."""
        self.partitions.append(parts)

"""Holistic pruning as an allocator: a budget, training data, and a plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import tensorflow as tf

from tfqprune.allocation.base import Allocator, register_allocator
from tfqprune.allocation.given import check_counted
from tfqprune.allocation.holistic import HolisticPruning
from tfqprune.budget import Budget
from tfqprune.errors import DataError, whole_number
from tfqprune.fitting import Fit, Fitter, names_of
from tfqprune.plan import PruningPlan
from tfqprune.recovery.training import callbacks_of, choose_loss, cosine, fit_anew, prepare


@register_allocator("holistic")
class HolisticAllocator(Allocator):
    """Ratios, and which units go, learned by :class:`HolisticPruning` on a copy of the model.

    The plan is all that :meth:`allocate` returns; :attr:`pruning` keeps what trained, so that its slim model, which has
    had its training already, need not be trained again: ``allocator.pruning.finish()``.

    Args:
        budget: what must hold; of the costs that need no measuring.
        epochs: of training, at least 1.
        share: of all steps, in which gates are learned (see :class:`HolisticPruning`).
        learning_rate: of the first step; it falls to 0 along half a cosine.
        batch_size: for arrays.
        optimizer: see :func:`tfqprune.finetune`; always new.
        loss: likewise.
        start: a plan to start from (see :class:`HolisticPruning`).
        callbacks: Keras callbacks for the training.
        validation: data for the training's ``validation_data``; None: none.

    Attributes:
        pruning: the :class:`HolisticPruning` of the last :meth:`allocate`; None before.

    Raises:
        BudgetError: no budget, or one of costs that must be measured.
        DataError: epochs or batch_size below 1, or a learning rate that is not above 0.
    """

    def __init__(
        self,
        budget: Budget,
        *,
        epochs: int = 10,
        share: float = 0.6,
        learning_rate: float = 1e-3,
        batch_size: int = 64,
        optimizer: Any = "adam",
        loss: Any = None,
        start: PruningPlan | None = None,
        callbacks: Sequence[tf.keras.callbacks.Callback] = (),
        validation: Any = None,
    ) -> None:
        super().__init__(check_counted(budget))
        cosine(learning_rate, 1, epochs)  # refuses numbers that make no sense
        whole_number("batch_size", batch_size, DataError)
        self._epochs, self._share, self._start = epochs, share, start
        self._rate, self._batch_size, self._optimizer, self._loss = learning_rate, batch_size, optimizer, loss
        self._callbacks, self._validation = callbacks_of(callbacks), validation
        self.pruning: HolisticPruning | None = None

    def allocate(
        self, model: tf.keras.Model, criterion: Any = "auto", data: Any = None, align: int = 1, **limits: Any
    ) -> PruningPlan:
        """As :meth:`Allocator.allocate`; ``data`` is also what a copy of the model trains on, and needs labels.

        Raises:
            DataError: no data, or data that does not fit.
        """
        if data is None:
            raise DataError(
                "Expected data with labels, for holistic ratios are learned while the model trains. Received: none. "
                "Give (x, y) arrays or a data set as data."
            )
        self._train = prepare(model, data, self._batch_size, "train")
        limits["exclude"] = names_of(limits.get("exclude", ()))  # read twice
        known = {name: value for name, value in limits.items() if name not in ("scores", "meter")}
        self._limits = {"align": align, **known}
        plan = super().allocate(model, criterion, data, align, **limits)
        assert self.pruning is not None  # fit has made it
        # Which units go was learned with the ratios; the criterion says where the gates started.
        return replace(plan, removed=self.pruning.plan().removed)

    def fit(self, model: tf.keras.Model, fitter: Fitter) -> Fit:
        pruning = HolisticPruning(
            model, self.budget, scores=fitter.scores, share=self._share, start=self._start, **self._limits
        )
        held_out = self._validation
        if held_out is not None:
            held_out = prepare(model, held_out, self._batch_size, "validation", shuffle=False)
        loss = choose_loss(model, self._train, self._loss)
        fit_anew(
            pruning, pruning.network, self._train, held_out, self._epochs, loss,
            optimizer=self._optimizer, learning_rate=self._rate, callbacks=self._callbacks, verbose=0,
        )  # fmt: skip
        self.pruning = pruning
        plan = pruning.plan()
        counts = {name: len(plan.removed.get(name, ())) for name in fitter.names}
        return Fit(counts, fitter.ratios(counts), fitter.counted(counts), 1.0)

    def notes(self) -> dict[str, Any]:
        if self.pruning is None:
            return {}
        return {name: self.pruning.plan().notes[name] for name in ("binding", "learned", "steps")}

"""The Bayesian ratio search as an allocator."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import weakref
from typing import Any

import tensorflow as tf

from tfqprune.allocation.base import Allocator, register_allocator
from tfqprune.allocation.oracle import ratios_of
from tfqprune.allocation.ratio_tuner import RatioTuner
from tfqprune.budget import Budget
from tfqprune.errors import DataError
from tfqprune.fitting import Fit, Fitter


@register_allocator("bayesian")
class BayesianAllocator(Allocator):
    """The ratios of the best trial of a :class:`RatioTuner`.

    Guerra, Zhuang, Reid, Drummond, "Automatic Pruning for Quantized Neural Networks", arXiv
    2002.00523, find per-layer ratios by Bayesian optimisation. How is ours: see :class:`RatioTuner`,
    which has more to tell than a plan: models, tables, the Pareto front. It is kept in :attr:`tuner`.

    Args:
        budget: what must hold.
        validation: data to judge trials by.
        train: data to re-estimate batch norms on, and to fine-tune on where trials are fine-tuned;
            None: ``data`` of :meth:`allocate`.
        max_trials: number of trials.
        directory / project_name: where trials are kept, and taken up again; None: in a temporary folder that
            goes with the allocator.
        seed: the same seed gives the same trials.
        epochs: of fine-tuning, where trials are fine-tuned (``evaluation="finetune"`` or ``"both"``).
        verbose: 0 prints nothing.
        options: further arguments of :class:`RatioTuner`, such as ``sensitivity`` and ``starts``.

    Attributes:
        tuner: the tuner of the last :meth:`allocate`; None before.

    Raises:
        BudgetError: no budget.
    """

    def __init__(
        self,
        budget: Budget,
        *,
        validation: Any,
        train: Any = None,
        max_trials: int = 30,
        directory: str | os.PathLike[str] | None = None,
        project_name: str = "trials",
        seed: int = 0,
        epochs: int = 1,
        verbose: int = 1,
        **options: Any,
    ) -> None:
        super().__init__(budget)
        self._validation, self._train = validation, train
        self._directory, self._epochs, self._verbose = directory, epochs, verbose
        self._options = {**options, "max_trials": max_trials, "project_name": project_name, "seed": seed}
        self.tuner: RatioTuner | None = None

    def fit(self, model: tf.keras.Model, fitter: Fitter) -> Fit:
        train = self._data if self._train is None else self._train
        if train is None:
            raise DataError(
                "Expected data to re-estimate batch norms on: train=..., or data=... of allocate(). Received: none."
            )
        directory = self._directory or self._temporary()
        # Keras-Tuner says what it finds on disk, to whomever.
        with contextlib.nullcontext() if self._verbose else contextlib.redirect_stdout(None):
            self.tuner = RatioTuner(model, fitter=fitter, directory=directory, **self._options)
        self.tuner.search(train, validation_data=self._validation, epochs=self._epochs, verbose=self._verbose)
        best = self.tuner.best_trial()
        self._found = self.tuner.found(best)
        return fitter.fitted(fitter.nearest(ratios_of(best)))

    def _temporary(self) -> str:
        """A folder that stays as long as this allocator does: its tuner reads trials from there."""
        folder = tempfile.mkdtemp()
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return folder

    def notes(self) -> dict[str, Any]:
        return self._found

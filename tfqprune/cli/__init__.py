"""The command ``tfqprune``."""

from __future__ import annotations

from tfqprune.cli.application import app, main

__all__ = ["app", "main"]

"""The command ``tfqprune``."""

from __future__ import annotations

from tfqprune.cli.frame import app, main

__all__ = ["app", "main"]

"""The command ``tfqprune``."""

from __future__ import annotations

from tfqprune.cli.app import app, main

__all__ = ["app", "main"]

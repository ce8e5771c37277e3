"""``python -m tfqprune`` is the command ``tfqprune``."""

from __future__ import annotations

from tfqprune.cli import main

main()

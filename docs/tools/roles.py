"""Griffe extension: the cross-references of docstrings, as in :func:`tfqprune.score`, become code."""

from __future__ import annotations

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:func|class|meth|attr|mod|data|exc):`~?([^`]+)`")


class Roles(griffe.Extension):
    """Replaces roles, which Markdown does not know, in every docstring."""

    def on_object(self, *, obj: Any, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = _ROLE.sub(r"`\1`", obj.docstring.value)

"""Keeps TensorFlow's start-up chatter off the terminal.

Some of it is printed by C++ before any logging option is read, so nothing less than pointing the file descriptor of
standard error elsewhere helps. What was said is kept, and shown if the import fails.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def standard_error_aside() -> Iterator[None]:
    """While inside, what is written to file descriptor 2 is held back; on an exception it is shown after all."""
    sys.stderr.flush()
    try:
        kept = os.dup(2)
    except OSError:  # no standard error at all: nothing to hold back
        yield
        return
    with tempfile.TemporaryFile() as aside:
        os.dup2(aside.fileno(), 2)
        try:
            yield
        except BaseException:
            sys.stderr.flush()
            aside.seek(0)
            os.write(kept, aside.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)


def load_tensorflow() -> None:
    """Imports TensorFlow and larq without a word, and tells them to stay quiet.

    Raises:
        ImportError: TensorFlow cannot be imported; its own messages are shown first.
    """
    with standard_error_aside():
        import larq  # noqa: F401
        import tensorflow as tf

        tf.get_logger().setLevel("ERROR")
        # The first operation starts the rest of the runtime, which has its say too.
        tf.zeros(1)
    _quiet_absl()


def _quiet_absl() -> None:
    import logging

    logging.getLogger("absl").setLevel(logging.ERROR)

"""Selects legacy Keras (tf_keras) before TensorFlow loads.

larq is written for Keras 2. TensorFlow decides which Keras ``tf.keras`` is while it is
being imported, so this module has to run first.
"""

from __future__ import annotations

import os
import sys


def select_legacy_keras() -> None:
    """Makes ``tf.keras`` mean tf_keras, and keeps TensorFlow's start-up chatter quiet.

    Raises:
        ImportError: TensorFlow was imported already and chose Keras 3.
    """
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is not None and hasattr(tensorflow, "keras"):
        home = tensorflow.keras.Model.__module__.split(".")[0]
        if home != "tf_keras":
            version = getattr(sys.modules.get(home), "__version__", "3")
            raise ImportError(
                "tfqprune needs legacy Keras (tf_keras 2.x), but TensorFlow was imported before it and "
                f"chose Keras {version}. Import tfqprune before tensorflow, or set the environment "
                "variable TF_USE_LEGACY_KERAS=1 before Python starts."
            )
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    # setdefault: whoever wants the C++ log on the terminal says so in the environment.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GLOG_minloglevel", "2")

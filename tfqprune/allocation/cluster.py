"""Chief and workers: a search on several processes or machines, some of which may die.

Keras-Tuner's own protocol (``KERASTUNER_TUNER_ID``, ``KERASTUNER_ORACLE_IP``, ``KERASTUNER_ORACLE_PORT``).
What is added: workers show that they are alive, the trial of one that has fallen silent goes to another,
the chief ends once all trials have, and a worker that comes after that does not wait for it.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

# Keras-Tuner's chief and its protocol have no public names; pyproject.toml keeps to one of its minor versions.
import grpc  # type: ignore[import-untyped]
from keras_tuner.src import protos
from keras_tuner.src.distribute import utils
from keras_tuner.src.distribute.oracle_chief import OracleServicer

from tfqprune.errors import ClusterError

#: seconds without a sign of life after which a worker counts as dead
WORKER_TIMEOUT = 60.0
_PATIENCE = 3600.0  # seconds that a worker waits for its chief, as long as Keras-Tuner's client does
_LOOK = 2.0  # seconds between two looks at whether the search has ended


def is_chief() -> bool:
    """Whether this process is the chief of a cluster."""
    return bool(utils.is_chief_oracle())


def is_worker() -> bool:
    """Whether this process is a worker of a cluster."""
    return bool(utils.has_chief_oracle()) and not is_chief()


def serve(oracle: Any, timeout: float) -> None:
    """Answers workers until all trials have ended and all workers have been told, or have died.

    Raises:
        ClusterError: the port is in use, or the address is not this machine's.
    """
    address = _address()
    # Without this option a second chief would share the port, and get half of the calls.
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=1), options=[("grpc.so_reuseport", 0)])
    protos.get_service_grpc().add_OracleServicer_to_server(OracleServicer(oracle), server)
    try:
        bound = server.add_insecure_port(address)
    except RuntimeError:
        bound = 0
    if not bound:
        raise ClusterError(
            f"Expected a free port for the chief. Received: {address}, which is in use or no address of this machine. "
            "Choose another KERASTUNER_ORACLE_PORT, here and for all workers."
        )
    server.start()
    try:
        while not oracle.finished(timeout):
            time.sleep(0.2)
    finally:
        server.stop(grace=1).wait()


def chief_answers(ended: Callable[[], bool], patience: float = _PATIENCE) -> bool:
    """Waits for the chief; False where the search ends, or has ended, without this worker.

    Args:
        ended: whether the search has ended.
        patience: seconds.

    Raises:
        ClusterError: no chief has answered in all that time.
    """
    with grpc.insecure_channel(_address()) as channel:
        ready = grpc.channel_ready_future(channel)
        until = time.monotonic() + patience
        while time.monotonic() < until:
            with contextlib.suppress(grpc.FutureTimeoutError):
                ready.result(timeout=min(_LOOK, patience))
                return True
            if ended():
                ready.cancel()
                return False
        ready.cancel()
    raise ClusterError(
        f"Expected a chief at {_address()}. Received: no answer in {patience:g} s. Start the same script with "
        "KERASTUNER_TUNER_ID=chief there."
    )


def _address() -> str:
    return f"{os.environ['KERASTUNER_ORACLE_IP']}:{os.environ['KERASTUNER_ORACLE_PORT']}"


@contextlib.contextmanager
def signs_of_life(oracle: Any, tuner_id: str, timeout: float) -> Iterator[None]:
    """Lets a worker show its chief that it is alive, for as long as a trial runs.

    The chief answers a worker that asks for a trial while it has one with that same trial.
    """
    over = threading.Event()

    def tell() -> None:
        while not over.wait(timeout / 5):
            with contextlib.suppress(grpc.RpcError):  # a chief that is away may come back
                oracle.create_trial(tuner_id)

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(timeout)

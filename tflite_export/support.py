"""What the runtimes cannot do, as data: combinations that raise late or, worse, compute something else in silence.

Measured on LiteRT 2.3, TensorFlow 2.21 and Larq Compute Engine 0.16. A format that builds one of them is refused before
anything is written or run; formats of users go through the same gate.
"""

from __future__ import annotations

from typing import Any

from tflite_export.graph import TYPE_NAMES, Graph, is_lce
from tfqprune.errors import ExportError

_LCE_TYPES = "Larq Compute Engine's runtime is older than this type"
# (operator, type of its input or "*", type of its kernel) -> why not.
REFUSED_KERNELS: dict[tuple[str, str, str], str] = {
    ("CONV_2D", "*", "INT2"): "the runtime raises, or reads the bytes as another type",
    ("DEPTHWISE_CONV_2D", "*", "INT2"): "the runtime has no such kernel",
    ("DEPTHWISE_CONV_2D", "INT16", "INT4"): "the runtime computes something else, without an error",
    ("DEPTHWISE_CONV_2D", "FLOAT32", "INT4"): "the runtime has no such kernel",
}
# (operator or "*", type of any of its constants) that Larq Compute Engine cannot read.
REFUSED_BY_LCE: dict[tuple[str, str], str] = {
    ("*", "INT2"): _LCE_TYPES,
    ("DEQUANTIZE", "INT4"): _LCE_TYPES,
}


def check_support(model: Any) -> None:
    """Refuses a model with an operator that its runtime is known to get wrong.

    Raises:
        ExportError: names operator, types, reason and what to do.
    """
    graph = Graph(model)
    lce = is_lce(model)
    for number, operator in enumerate(graph.operators):
        kind = graph.kind(operator)
        types = [TYPE_NAMES.get(graph.tensors[int(i)].type, "?") if i >= 0 else "" for i in operator.inputs]
        if len(types) >= 2:
            for given in (types[0], "*"):
                reason = REFUSED_KERNELS.get((kind, given, types[1]))
                if reason:
                    raise _refusal(number, kind, f"{types[1]} weights and {types[0]} input", reason)
        for name in types if lce else ():
            reason = REFUSED_BY_LCE.get((kind, name)) or REFUSED_BY_LCE.get(("*", name))
            if reason:
                raise _refusal(number, kind, f"{name} values", reason)


def _refusal(number: int, kind: str, what: str, reason: str) -> ExportError:
    return ExportError(
        f"Expected operators that the runtime computes correctly. Received: operator {number}, {kind} with {what}: "
        f'{reason}. Decode the weights first (CAST and MUL, as format="packed" does), or store them in 8 bits.'
    )

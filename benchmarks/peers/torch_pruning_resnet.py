"""Torch-Pruning's side of benchmarks/engine.py; runs in an environment of its own (torch, torch-pruning).

Prunes 30 % of the channels of a ResNet-50 by L1 magnitude, with Torch-Pruning's recommended high-level
pruner, as often as lines arrive on standard input; answers each with the seconds it took, as JSON.
ResNets are written out here because the registry has no CPU build of torchvision; the layers are those of
He et al., arXiv 1512.03385 (stride in the 3x3 convolution or the first 1x1 makes no difference here).
"""

from __future__ import annotations

import json
import sys
import time
from importlib import metadata

import torch
import torch_pruning as tp
from torch import nn

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def convolution(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False), nn.BatchNorm2d(outputs))


class Bottleneck(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            convolution(inputs, width, 1, stride), nn.ReLU(), convolution(width, width, 3), nn.ReLU(),
            convolution(width, 4 * width, 1),
        )  # fmt: skip
        self.shortcut = convolution(inputs, 4 * width, 1, stride) if inputs != 4 * width else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


def resnet(depth: int) -> nn.Module:
    layers: list[nn.Module] = [convolution(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    inputs = 64
    for stage, count in enumerate(BLOCKS[depth]):
        width = 64 * 2**stage
        for block in range(count):
            layers.append(Bottleneck(inputs, width, 2 if stage and not block else 1))
            inputs = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 1000))


def prune(model: nn.Module, ratio: float) -> tuple[float, int]:
    """Seconds for graph and step, and the parameters that are left."""
    example, classifier = torch.randn(1, 3, 224, 224), model[-1]
    began = time.perf_counter()
    pruner = tp.pruner.MagnitudePruner(
        model,
        example,
        importance=tp.importance.MagnitudeImportance(p=1),
        pruning_ratio=ratio,
        ignored_layers=[classifier],
    )
    pruner.step()
    seconds = time.perf_counter() - began
    return seconds, sum(parameter.numel() for parameter in model.parameters())


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else torch.get_num_threads())
    print(json.dumps({"torch": torch.__version__, "torch-pruning": metadata.version("torch-pruning")}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        seconds, parameters = prune(resnet(request["depth"]).eval(), request["ratio"])
        print(json.dumps({"seconds": seconds, "parameters": parameters}), flush=True)


if __name__ == "__main__":
    main()

"""Torch-Pruning's side of benchmarks/engine.py; runs in an environment of its own (torch, torch-pruning).

Prunes a share of the channels of a network by L1 magnitude, with Torch-Pruning's recommended high-level pruner, as
often as lines arrive on standard input; answers each with the seconds it took, as JSON, and where ``structure`` is
asked for, with parameters, MACs and output channels of every convolution, before and after.

The networks are written out here because the registry has no CPU build of torchvision: ResNets of He et al., arXiv
1512.03385 (stride in the first 1x1 convolution, as in tf_keras.applications), and MobileNetV2 of Sandler et al., arXiv
1801.04381. Modules stand in the order in which tf_keras.applications lists its layers, so that lists can be compared.
"""

from __future__ import annotations

import json
import sys
import time
from importlib import metadata
from typing import Any

import torch
import torch_pruning as tp
from torch import nn

BLOCKS = {"ResNet50": (3, 4, 6, 3), "ResNet101": (3, 4, 23, 3), "ResNet152": (3, 8, 36, 3)}
# of MobileNetV2: expansion, output channels, blocks, stride of the first
INVERTED = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
SHAPE = (1, 3, 224, 224)


def convolution(inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    layer = nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs))


class Bottleneck(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            convolution(inputs, width, 1, stride), nn.ReLU(), convolution(width, width, 3), nn.ReLU()
        )
        self.shortcut = convolution(inputs, 4 * width, 1, stride) if inputs != 4 * width else nn.Identity()
        self.last = convolution(width, 4 * width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.last(self.inner(x)) + self.shortcut(x))


class InvertedResidual(nn.Module):
    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        width = expansion * inputs
        expand = [convolution(inputs, width, 1), nn.ReLU6()] if expansion != 1 else []
        self.body = nn.Sequential(
            *expand, convolution(width, width, 3, stride, groups=width), nn.ReLU6(), convolution(width, outputs, 1)
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x) if self.residual else self.body(x)


def resnet(blocks: tuple[int, ...]) -> nn.Module:
    layers: list[nn.Module] = [convolution(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    inputs = 64
    for stage, count in enumerate(blocks):
        width = 64 * 2**stage
        for block in range(count):
            layers.append(Bottleneck(inputs, width, 2 if stage and not block else 1))
            inputs = 4 * width
    return classified(layers, inputs)


def mobilenet() -> nn.Module:
    layers: list[nn.Module] = [convolution(3, 32, 3, 2), nn.ReLU6()]
    inputs = 32
    for expansion, outputs, count, stride in INVERTED:
        for block in range(count):
            layers.append(InvertedResidual(inputs, outputs, expansion, stride if not block else 1))
            inputs = outputs
    return classified([*layers, convolution(inputs, 1280, 1), nn.ReLU6()], 1280)


def classified(layers: list[nn.Module], inputs: int) -> nn.Module:
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 1000)).eval()


def network(name: str) -> nn.Module:
    return mobilenet() if name == "MobileNetV2" else resnet(BLOCKS[name])


def prune(model: nn.Module, ratio: float) -> float:
    """Seconds for graph and step."""
    example, classifier = torch.randn(SHAPE), model[-1]
    began = time.perf_counter()
    pruner = tp.pruner.MagnitudePruner(
        model,
        example,
        importance=tp.importance.MagnitudeImportance(p=1),
        pruning_ratio=ratio,
        ignored_layers=[classifier],
    )
    pruner.step()
    return time.perf_counter() - began


def structure(model: nn.Module) -> dict[str, Any]:
    """Parameters, MACs of the kernels, and output channels of every convolution."""
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    macs: list[int] = []
    hooks = [
        layer.register_forward_hook(
            lambda layer, _inputs, output: macs.append(output.numel() * layer.weight[0].numel())
        )
        for layer in layers
    ]
    with torch.no_grad():
        model(torch.randn(SHAPE))
    for hook in hooks:
        hook.remove()
    return {
        "params": sum(parameter.numel() for parameter in model.parameters()),
        "macs": sum(macs),
        "channels": [layer.out_channels for layer in layers if isinstance(layer, nn.Conv2d)],
    }


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else torch.get_num_threads())
    print(json.dumps({"torch": torch.__version__, "torch-pruning": metadata.version("torch-pruning")}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        model = network(request["network"])
        before = structure(model) if request.get("structure") else None
        answer: dict[str, Any] = {"seconds": prune(model, request["ratio"])}
        if before is not None:
            answer |= {"before": before, "after": structure(model)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()

"""The blocks of unknown vision models: together they hold every layer that is called, and each is called once."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from qbench.methods.matrices import is_matrix_layer
from qbench.tasks.blocks import find_blocks
from qbench.tasks.torchvision_ops import declare_missing_operators

# The size of the images, how many blocks there are, and the most layers that one of them has.
TORCHVISION = {
    "resnet18": (32, 10, 3),
    "mobilenet_v2": (32, 20, 3),
    "vgg11_bn": (32, 11, 1),
    "vit_b_16": (32, 14, 2),
    "convnext_tiny": (32, 23, 3),
    "densenet121": (32, 9, 48),
    "efficientnet_b0": (32, 19, 5),
    "swin_t": (32, 17, 2),
    "squeezenet1_1": (32, 10, 3),
    "googlenet": (32, 13, 6),
    "inception_v3": (75, 17, 10),
    "regnet_y_400mf": (32, 18, 6),
    "shufflenet_v2_x0_5": (32, 19, 5),
}


def torchvision_model(name: str, size: int) -> nn.Module:
    declare_missing_operators()
    from torchvision import models

    options: dict[str, Any] = {"init_weights": False} if name in {"googlenet", "inception_v3"} else {}
    if name == "vit_b_16":
        options["image_size"] = size
    if name in {"swin_t", "regnet_y_400mf"}:  # buffers and sizes are computed with tensors
        return getattr(models, name)(weights=None, num_classes=10)
    with torch.device("meta"):  # weights of these sizes take seconds to draw
        model = getattr(models, name)(weights=None, num_classes=10, **options)
    return model.to_empty(device="cpu")


@torch.no_grad()
def calls_in(model: nn.Module, example: Tensor) -> list[nn.Module]:
    called: list[nn.Module] = []
    hooks = [module.register_forward_pre_hook(lambda one, _: called.append(one)) for module in model.modules()]
    model(example)
    for hook in hooks:
        hook.remove()
    return called


def check(model: nn.Module, example: Tensor) -> list[tuple[str, nn.Module]]:
    """Find the blocks, and make sure of what is promised of them in any model."""
    found = find_blocks(model, example)
    calls = calls_in(model, example)
    assert all(model.get_submodule(name) is block for name, block in found)
    assert [one for one in calls if one in [block for _, block in found]] == [block for _, block in found]
    held = Counter(
        inner for _, block in found for inner in block.modules() if is_matrix_layer(inner) and inner in calls
    )
    assert set(held) == {one for one in calls if is_matrix_layer(one)}
    assert not held or max(held.values()) == 1
    assert not any(module._forward_pre_hooks for module in model.modules())
    return found


@pytest.mark.parametrize("name", TORCHVISION)
def test_models_of_torchvision(name: str) -> None:
    size, count, largest = TORCHVISION[name]
    model = torchvision_model(name, size).eval()
    example = torch.zeros(1, 3, size, size)
    called = set(calls_in(model, example))
    found = check(model, example)
    assert len(found) == count
    assert max(sum(is_matrix_layer(one) and one in called for one in block.modules()) for _, block in found) == largest


def conv(inputs: int = 4, outputs: int = 4) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = conv(), conv()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(functional.relu(self.first(x)))


class Wrapped(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class Loose(nn.Module):
    """Calls the parts of its containers itself, and never the containers; the last part is idle."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList([Residual(), nn.Sequential(conv()), nn.ModuleDict({"a": conv()})])
        self.norm = nn.BatchNorm2d(4)
        self.aside = conv()

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.parts[0](self.parts[1](self.parts[2]["a"](x))))


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = conv()
        self.again = nn.Sequential(Residual(), conv())

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.again[1](self.again[0](self.again[0](x))))


def names(model: nn.Module) -> list[str]:
    return [name for name, _ in check(model.eval(), torch.randn(2, 4, 6, 6))]


def test_containers_are_opened_and_norms_left_out() -> None:
    row = nn.Sequential(conv(), nn.BatchNorm2d(4), nn.Sequential(Residual(), Residual()), nn.ReLU())
    assert names(row) == ["0", "2.0", "2.1"]


def test_a_container_of_one_layer_is_a_block() -> None:
    assert names(nn.Sequential(nn.Sequential(conv(), nn.BatchNorm2d(4), nn.ReLU()), nn.Sequential(Residual()))) == [
        "0",
        "1.0",
    ]


def test_what_holds_most_of_the_model_is_opened_where_it_holds_a_container() -> None:
    net = nn.Sequential(conv(), Residual(), Residual())
    assert names(Wrapped(net)) == ["net.0", "net.1", "net.2"]
    assert names(Wrapped(Wrapped(Wrapped(net)))) == ["net.net.net.0", "net.net.net.1", "net.net.net.2"]
    assert names(Wrapped(Residual())) == ["net"]


def test_containers_that_are_never_called_are_opened_and_the_order_is_that_of_calls() -> None:
    assert names(Loose()) == ["parts.2.a", "parts.1", "parts.0"]


def test_a_module_that_is_called_twice_makes_what_holds_it_the_block() -> None:
    assert names(Wrapped(Shared())) == ["net"]  # its container is never called
    assert names(Shared()) == [""]
    twice = conv()
    assert names(nn.Sequential(conv(), nn.Sequential(twice, conv(), twice))) == ["0", "1"]


def test_a_layer_that_two_blocks_share_makes_the_model_one_block() -> None:
    first, second = Residual(), Residual()
    second.first = first.first
    model = nn.Sequential(first, second)
    assert [name for name, _ in find_blocks(model, torch.randn(2, 4, 6, 6))] == [""]


def test_without_a_layer_there_is_no_block() -> None:
    assert find_blocks(nn.Sequential(nn.BatchNorm2d(4), nn.ReLU()), torch.randn(2, 4, 6, 6)) == []


def test_the_model_is_left_as_it_was() -> None:
    model = nn.Sequential(conv(), nn.BatchNorm2d(4), nn.Sequential(nn.Dropout(), conv()))
    model[2].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    find_blocks(model, torch.randn(2, 4, 6, 6))
    assert modes == [module.training for module in model.modules()]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())

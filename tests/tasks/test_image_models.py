"""The zoo's classifiers: shapes, sizes, chains, and what a checkpoint keeps."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from qbench.tasks import zoo
from qbench.tasks.image_models import EncoderBlock, build_classifier, checkpoint_state, load_classifier
from qbench.tasks.image_zoo import MobileNet, ResNet

CLASSIFIERS = [name for name, model in zoo.models().items() if isinstance(model, zoo.ZooClassifierModel)]


def built(name: str) -> nn.Sequential:
    return build_classifier(zoo.classifier(name).architecture, 1, 8 if name == "mlp-digits" else 28, 10)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_images_become_logits_and_the_blocks_are_a_chain(name: str) -> None:
    model = built(name).eval()
    x = torch.randn(3, 1, *([8, 8] if name == "mlp-digits" else [28, 28]))
    by_block = x
    for block in model.children():
        by_block = block(by_block)
        assert any(parameter.ndim > 1 for parameter in block.parameters())
    assert by_block.shape == (3, 10)
    assert torch.equal(by_block, model(x))


def test_a_resnet_has_as_many_layers_as_its_name_says() -> None:
    for name, layers in (("resnet8-mnist", 8), ("resnet20-mnist", 20)):
        weights = [m for m in built(name).modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        shortcuts = [m for m in weights if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1)]
        assert len(weights) - len(shortcuts) == layers


def test_the_twin_differs_in_batch_norm_alone() -> None:
    normed, twin = built("resnet8-mnist"), built("resnet8nobn-mnist")
    shapes = [[m.weight.shape for m in one.modules() if isinstance(m, nn.Conv2d | nn.Linear)] for one in (normed, twin)]
    assert shapes[0] == shapes[1]
    assert any(isinstance(m, nn.BatchNorm2d) for m in normed.modules())
    assert not any(isinstance(m, nn.BatchNorm2d) for m in twin.modules())


def test_a_block_without_batch_norm_starts_as_its_shortcut() -> None:
    block = dict(built("resnet8nobn-mnist").named_children())["stage1_1"]
    x = torch.rand(2, 16, 5, 5)
    assert torch.equal(block(x), x)


def test_a_mobilenet_is_depthwise() -> None:
    convs = [m for m in built("mobilenet-mnist").modules() if isinstance(m, nn.Conv2d)]
    assert {m.groups == m.in_channels for m in convs if m.kernel_size == (3, 3)} == {True}  # the stem has one input
    assert sum(m.groups > 1 for m in convs) == len(zoo.classifier("mobilenet-mnist").architecture.blocks)  # type: ignore[union-attr]


def test_attention_is_softmax_of_scaled_products() -> None:
    block = EncoderBlock(8, 2, 16).eval()
    x = torch.randn(1, 5, 8)
    given = block.attention_norm(x)
    q, k, v = (layer(given)[0].view(5, 2, 4) for layer in (block.query, block.key, block.value))
    mixed = torch.stack(
        [(q[:, head] @ k[:, head].T / 2).softmax(dim=1) @ v[:, head] for head in range(2)], dim=1
    ).flatten(1)
    middle = x[0] + block.out(mixed)
    expected = middle + block.down(nn.functional.gelu(block.up(block.mlp_norm(middle))))
    assert torch.allclose(block(x)[0], expected, atol=1e-6)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_checkpoint_is_the_rounded_model_and_its_statistics_are_whole(name: str, tmp_path: Path) -> None:
    model = built(name).train()
    model(torch.randn(8, 1, *([8, 8] if name == "mlp-digits" else [28, 28])))
    save_file(checkpoint_state(model), tmp_path / "x.safetensors")
    entry = zoo.classifier(name)
    loaded = load_classifier(entry.architecture, 1, 8 if name == "mlp-digits" else 28, 10, tmp_path / "x.safetensors")
    assert not loaded.training
    rounded = copy.deepcopy(model)
    for parameter in rounded.parameters():
        parameter.data = parameter.data.bfloat16().float()
    for (key, value), (other, expected) in zip(loaded.named_parameters(), rounded.named_parameters(), strict=True):
        assert key == other and torch.equal(value, expected), key
    buffers = dict(model.named_buffers())
    assert all(torch.equal(v, buffers[k]) for k, v in loaded.named_buffers() if "running" in k)


def test_a_checkpoint_of_another_model_does_not_fit(tmp_path: Path) -> None:
    save_file(checkpoint_state(built("resnet8-mnist")), tmp_path / "x.safetensors")
    twin = ResNet(kind="resnet", blocks_per_stage=1, norm="none")
    with pytest.raises(ValueError, match="does not fit the architecture"):
        load_classifier(twin, 1, 28, 10, tmp_path / "x.safetensors")


def test_the_same_seed_builds_the_same_model() -> None:
    def weights(seed: int) -> list[torch.Tensor]:
        torch.manual_seed(seed)
        return list(
            build_classifier(
                MobileNet(kind="mobilenet", width=4, last=8, expansion=2, blocks=((8, 2),)), 3, 8, 5
            ).parameters()
        )

    assert all(torch.equal(a, b) for a, b in zip(weights(0), weights(0), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(weights(0), weights(1), strict=True))

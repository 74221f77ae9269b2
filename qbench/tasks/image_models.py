"""The zoo's image classifiers: chains of blocks, each fed by the one before it alone."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from qbench.tasks.image_zoo import Mlp, MobileNet, ResNet, VisionTransformer

Architecture = ResNet | MobileNet | VisionTransformer | Mlp


def build_classifier(architecture: Architecture, channels: int, size: int, classes: int) -> nn.Sequential:
    """Return a freshly initialised classifier; draws from torch's global generator.

    Parameters
    ----------
    architecture : ResNet, MobileNet, VisionTransformer or Mlp
        Kind and sizes.
    channels, size : int
        Of the images, which are square.
    classes : int
        Of the logits.

    Returns
    -------
    nn.Sequential
        Its children are the blocks; images of shape (n, channels, size, size) to logits of shape (n, classes).
    """
    if isinstance(architecture, ResNet):
        return _resnet(architecture, channels, classes)
    if isinstance(architecture, MobileNet):
        return _mobilenet(architecture, channels, classes)
    if isinstance(architecture, VisionTransformer):
        return _vision_transformer(architecture, channels, size, classes)
    return _mlp(architecture, channels, size, classes)


class ConvNorm(nn.Sequential):
    """A convolution, its batch norm where there is one, and a rectifier where one is asked for.

    Parameters
    ----------
    inputs, outputs : int
        Channels.
    kernel, stride, groups : int
        Of the convolution; the padding keeps the size at stride 1.
    norm : bool
        Batch norm, or else a bias.
    activation : type of module or None
        What follows.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 3,
        stride: int = 1,
        groups: int = 1,
        *,
        norm: bool = True,
        activation: type[nn.Module] | None = nn.ReLU,
    ) -> None:
        conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=not norm)
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        parts: list[tuple[str, nn.Module]] = [("conv", conv)]
        if norm:
            parts.append(("norm", nn.BatchNorm2d(outputs)))
        if activation is not None:
            parts.append(("activation", activation()))
        super().__init__(OrderedDict(parts))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut (He et al., 2016, arXiv:1512.03385, figure 5 left).

    Without batch norm the branch is scaled by a learned scalar that starts at 0, so that the net starts as the identity
    (SkipInit: De and Smith, 2020, arXiv:2002.10444).

    Parameters
    ----------
    inputs, outputs, stride : int
        Channels, and the step of the first convolution. A shortcut that changes the shape is a 1x1 convolution.
    norm : bool
        Whether there is batch norm.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, *, norm: bool) -> None:
        super().__init__()
        self.first = ConvNorm(inputs, outputs, 3, stride, norm=norm)
        self.second = ConvNorm(outputs, outputs, 3, norm=norm, activation=None)
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else ConvNorm(inputs, outputs, 1, stride, norm=norm, activation=None)
        self.gain = None if norm else nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output of shape (n, outputs, height / stride, width / stride)."""
        branch = self.second(self.first(x))
        return functional.relu(self.shortcut(x) + (branch if self.gain is None else branch * self.gain))


class InvertedResidual(nn.Module):
    """A 1x1 expansion, a depthwise 3x3, a linear 1x1 projection (Sandler et al., 2018, arXiv:1801.04381, section 3.3).

    Parameters
    ----------
    inputs, outputs, stride, expansion : int
        Channels, the step of the depthwise convolution, and how many times wider it is than the input.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.expand = ConvNorm(inputs, wide, 1, activation=nn.ReLU6)
        self.depthwise = ConvNorm(wide, wide, 3, stride, groups=wide, activation=nn.ReLU6)
        self.project = ConvNorm(wide, outputs, 1, activation=None)
        self.has_shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output of shape (n, outputs, height / stride, width / stride)."""
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.has_shortcut else y


class PooledHead(nn.Sequential):
    """The mean over places, then a linear layer.

    Parameters
    ----------
    inputs, classes : int
        Channels and logits.
    """

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__(
            OrderedDict(pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), linear=nn.Linear(inputs, classes))
        )


class Dense(nn.Sequential):
    """A linear layer on flattened input, and a rectifier.

    Parameters
    ----------
    inputs, outputs : int
        Features.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(OrderedDict(flatten=nn.Flatten(), linear=nn.Linear(inputs, outputs), activation=nn.ReLU()))


class PatchEmbedding(nn.Module):
    """Patches as tokens, with learned positions (Dosovitskiy et al., 2021, arXiv:2010.11929, equation 1).

    Parameters
    ----------
    channels, size, patch, width : int
        Of the image; side of a patch; features of a token.
    """

    def __init__(self, channels: int, size: int, patch: int, width: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(channels, width, patch, patch)
        self.position = nn.Parameter(torch.randn((size // patch) ** 2, width) * 0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens of shape (n, patches, width)."""
        patches: Tensor = self.project(x)
        return patches.flatten(2).mT + self.position


class EncoderBlock(nn.Module):
    """Self-attention and a perceptron, each behind a layer norm and beside a shortcut (arXiv:2010.11929, (2) and (3)).

    Parameters
    ----------
    width, heads, hidden : int
        Features of a token, attention heads, features inside the perceptron.
    """

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.mlp_norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens of shape (n, tokens, width)."""
        given = self.attention_norm(x)
        q, k, v = (self._by_head(layer(given)) for layer in (self.query, self.key, self.value))
        mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + self.out(mixed)
        added: Tensor = self.down(functional.gelu(self.up(self.mlp_norm(x))))
        return x + added

    def _by_head(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)


class TokenHead(nn.Module):
    """A layer norm, the mean over tokens, a linear layer.

    Parameters
    ----------
    width, classes : int
        Features of a token, and logits.
    """

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of shape (n, classes)."""
        logits: Tensor = self.linear(self.norm(x).mean(dim=1))
        return logits


def _chain(blocks: list[tuple[str, nn.Module]]) -> nn.Sequential:
    return nn.Sequential(OrderedDict(blocks))


def _resnet(options: ResNet, channels: int, classes: int) -> nn.Sequential:
    width, norm = options.width, options.norm == "batch"
    blocks: list[tuple[str, nn.Module]] = [("stem", ConvNorm(channels, width, norm=norm))]
    inputs = width
    for stage in range(3):
        for index in range(options.blocks_per_stage):
            outputs, stride = width * 2**stage, 2 if stage and not index else 1
            blocks.append((f"stage{stage + 1}_{index + 1}", BasicBlock(inputs, outputs, stride, norm=norm)))
            inputs = outputs
    return _chain([*blocks, ("head", PooledHead(inputs, classes))])


def _mobilenet(options: MobileNet, channels: int, classes: int) -> nn.Sequential:
    blocks: list[tuple[str, nn.Module]] = [("stem", ConvNorm(channels, options.width, 3, 2, activation=nn.ReLU6))]
    inputs = options.width
    for index, (outputs, stride) in enumerate(options.blocks):
        blocks.append((f"inverted{index + 1}", InvertedResidual(inputs, outputs, stride, options.expansion)))
        inputs = outputs
    blocks.append(("last", ConvNorm(inputs, options.last, 1, activation=nn.ReLU6)))
    return _chain([*blocks, ("head", PooledHead(options.last, classes))])


def _vision_transformer(options: VisionTransformer, channels: int, size: int, classes: int) -> nn.Sequential:
    embedding = PatchEmbedding(channels, size, options.patch, options.width)
    layers = [
        (f"encoder{index + 1}", EncoderBlock(options.width, options.heads, options.hidden))
        for index in range(options.layers)
    ]
    return _chain([("embedding", embedding), *layers, ("head", TokenHead(options.width, classes))])


def _mlp(options: Mlp, channels: int, size: int, classes: int) -> nn.Sequential:
    widths = [channels * size * size, *options.hidden]
    blocks: list[tuple[str, nn.Module]] = [
        (f"hidden{index + 1}", Dense(*pair)) for index, pair in enumerate(pairwise(widths))
    ]
    return _chain([*blocks, ("head", nn.Linear(widths[-1], classes))])


def load_classifier(architecture: Architecture, channels: int, size: int, classes: int, weights: Path) -> nn.Sequential:
    """Return a classifier in float32 with the weights of a checkpoint.

    Parameters
    ----------
    architecture, channels, size, classes
        See `build_classifier`.
    weights : Path
        What `checkpoint_state` gave, as safetensors.

    Raises
    ------
    ValueError
        They are those of another architecture.
    """
    with torch.random.fork_rng(devices=[]):
        model = build_classifier(architecture, channels, size, classes)
    state = {name: tensor.float() for name, tensor in load_file(weights).items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    if unexpected or any(not name.endswith("num_batches_tracked") for name in missing):
        raise ValueError(f"{weights} does not fit the architecture: missing {missing}, unexpected {unexpected}")
    return model.eval()


def checkpoint_state(model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors a checkpoint keeps: parameters in bfloat16, running statistics in float32."""
    parameters = {name for name, _ in model.named_parameters()}
    return {
        name: tensor.detach().to("cpu", torch.bfloat16 if name in parameters else torch.float32).contiguous()
        for name, tensor in model.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }

"""The image classifiers of the zoo: kinds of architecture, and how they are trained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from qbench.tasks.recipe import Schedule


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ResNet(_Part):
    """A residual net of three stages for small images (He et al., 2016, arXiv:1512.03385, section 4.2).

    Attributes
    ----------
    kind : str
        ``resnet``.
    blocks_per_stage : int
        Two convolutions each: 1 is ResNet-8, 3 is ResNet-20.
    width : int
        Channels of the first stage; each further stage has twice as many at half the size.
    norm : str
        ``batch``, or ``none``: the twin without batch norm.
    """

    kind: Literal["resnet"]
    blocks_per_stage: int
    width: int = 16
    norm: Literal["batch", "none"] = "batch"


class MobileNet(_Part):
    """A MobileNetV2-style net with depthwise convolutions (Sandler et al., 2018, arXiv:1801.04381).

    Attributes
    ----------
    kind : str
        ``mobilenet``.
    width, last : int
        Channels of the stem, which halves the size, and of the 1x1 convolution before the head.
    expansion : int
        How many times wider a block's depthwise convolution is than its input.
    blocks : tuple of (int, int)
        Output channels and stride of each block.
    """

    kind: Literal["mobilenet"]
    width: int
    last: int
    expansion: int
    blocks: tuple[tuple[int, int], ...]


class VisionTransformer(_Part):
    """A small vision transformer (Dosovitskiy et al., 2021, arXiv:2010.11929) with the mean of its tokens as feature.

    Attributes
    ----------
    kind : str
        ``vit``.
    patch, width, layers, heads, hidden : int
        Side of a patch, features of a token, encoder blocks, attention heads, features inside the perceptrons.
    """

    kind: Literal["vit"]
    patch: int
    width: int
    layers: int
    heads: int
    hidden: int


class Mlp(_Part):
    """A perceptron on flattened images.

    Attributes
    ----------
    kind : str
        ``mlp``.
    hidden : tuple of int
        Features of the hidden layers.
    """

    kind: Literal["mlp"]
    hidden: tuple[int, ...]


ImageArchitecture = Annotated[ResNet | MobileNet | VisionTransformer | Mlp, Field(discriminator="kind")]


class ImageRecipe(Schedule):
    """How a classifier is trained; see `Schedule`.

    Attributes
    ----------
    label_smoothing : float
        Share of the target that is spread over all classes.
    shift : int
        Training images are moved by up to so many pixels each way, and mirrored where their source allows it.
    """

    label_smoothing: float = 0.0
    shift: int = 2

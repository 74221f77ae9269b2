"""What pretraining needs to know of a zoo's image classifier."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from qbench.seeds import derive_seed
from qbench.tasks import zoo
from qbench.tasks.image_card import render_card
from qbench.tasks.image_data import ImageBatch, Normalisation, stream
from qbench.tasks.image_models import build_classifier, checkpoint_state

_BATCH = 250


class ImageTrainee:
    """A classifier to be trained on its images; see `qbench.tasks.pretrain.Trainee`.

    Parameters
    ----------
    name : str
        A classifier of the zoo.
    seed : int
        Training seed.
    """

    def __init__(self, name: str, seed: int) -> None:
        self._name, self._seed, self._spec = name, seed, zoo.classifier(name)
        self.recipe = self._spec.recipe
        source = self._spec.images
        self._train, self._held_out = source.load("train"), source.load("evaluation")
        self._normalise = Normalisation.of(self._train)

    def build(self) -> nn.Module:
        """Return a new model; draws from torch's global generator."""
        _, channels, size, _ = self._train.images.shape
        return build_classifier(self._spec.architecture, channels, size, self._train.classes)

    def batches(self, start: int) -> Iterator[ImageBatch]:
        """Yield batches of shifted (and mirrored) images for ever, from batch number `start` on."""
        return stream(
            self._train,
            self._normalise,
            self.recipe.batch_size,
            derive_seed("pretrain-batches", self._name, self._seed),
            shift=self.recipe.shift,
            mirror=self._spec.images.mirrored,
            start=start,
        )

    def loss(self, model: nn.Module, batch: ImageBatch, device: str) -> Tensor:
        """Return the loss of a batch, in nats an image."""
        logits = model(batch.images.to(device))
        labels = batch.labels.to(device)
        return functional.cross_entropy(logits.float(), labels, label_smoothing=self.recipe.label_smoothing)

    @torch.no_grad()
    def measure(self, model: nn.Module) -> dict[str, float]:
        """Return held-out loss in nats an image, and accuracy."""
        model.eval()
        device = next(model.parameters()).device
        labels = torch.from_numpy(self._held_out.labels).to(device)
        images = self._normalise(torch.from_numpy(self._held_out.images))
        logits = torch.cat([model(part.to(device)).float() for part in images.split(_BATCH)])
        return {
            "held_out_loss": float(functional.cross_entropy(logits, labels)),
            "held_out_accuracy": float((logits.argmax(dim=1) == labels).float().mean()),
        }

    def checkpoint(self, model: nn.Module) -> dict[str, Tensor]:
        """Return the tensors that are kept."""
        return checkpoint_state(model)

    def describe(self) -> dict[str, Any]:
        """Return what ``training.json`` says of the data."""
        return {"images": self.recipe.samples, "data": self._spec.images.fingerprint()}

    def card(self, result: dict[str, Any]) -> str:
        """Return the model card."""
        return render_card(result)

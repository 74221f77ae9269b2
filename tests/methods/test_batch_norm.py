"""Batch norm: statistics estimated again are those of the data, folded layers compute what they did."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from qbench.errors import CellError
from qbench.methods.batch_norm import batch_norms, fold, put_folded, recalibrate

IMAGES = torch.tensor(load_digits().images[:96] / 16, dtype=torch.float32)[:, None]


def forward(model: nn.Module, batch: Tensor) -> Any:
    return model(batch)


def settled(model: nn.Module) -> nn.Module:
    """Return a model in evaluation mode whose running statistics, scales and shifts are none of the first ones."""
    with torch.no_grad():
        for norm in batch_norms(model).values():
            if norm.affine:
                nn.init.uniform_(norm.weight, 0.5, 2)
                nn.init.normal_(norm.bias)
        for _ in range(3):
            model.train()(IMAGES)
    return model.eval()


@pytest.fixture
def network() -> nn.Module:
    """Return a net with a batch norm behind a plain, a grouped and a depthwise convolution and a linear layer."""
    torch.manual_seed(0)
    return settled(
        nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
            nn.Conv2d(8, 12, 3, stride=2, groups=2),
            nn.BatchNorm2d(12, affine=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(12, 12, 3, groups=12),
            nn.BatchNorm2d(12),
            nn.Flatten(),
            nn.Linear(12, 16),
            nn.BatchNorm1d(16),
            nn.ReLU(),
            nn.Linear(16, 10),
        )
    )


PAIRS = {"0": "1", "4": "5", "7": "8", "10": "11"}


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor], names: Iterable[str]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in names)


def test_of_one_batch_they_are_its_mean_and_variance_layer_after_layer(network: nn.Module) -> None:
    recalibrate(network, forward, [IMAGES])
    x = IMAGES
    for module in network:
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            values = x.transpose(0, 1).flatten(1)
            torch.testing.assert_close(module.running_mean, values.mean(dim=1))
            torch.testing.assert_close(module.running_var, values.var(dim=1))
            shape = (1, -1) + (1,) * (x.ndim - 2)
            x = (x - values.mean(dim=1).view(shape)) / (values.var(dim=1, correction=0).view(shape) + module.eps).sqrt()
            if module.affine:
                x = x * module.weight.view(shape) + module.bias.view(shape)
        else:
            x = module(x)


def test_of_equal_batches_they_are_those_of_torchs_own_estimate(network: nn.Module) -> None:
    reference = copy.deepcopy(network)
    for module in reference.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    update_bn(IMAGES.split(24), reference)
    recalibrate(network, forward, IMAGES.split(24))
    for name, norm in batch_norms(network).items():
        torch.testing.assert_close(norm.running_mean, batch_norms(reference)[name].running_mean)
        torch.testing.assert_close(norm.running_var, batch_norms(reference)[name].running_var)


def test_batches_weigh_as_much_as_they_are_large(network: nn.Module) -> None:
    recalibrate(network, forward, [IMAGES[:60], IMAGES[60:90], IMAGES[90:]])
    wanted = network[0](IMAGES).mean(dim=(0, 2, 3))
    torch.testing.assert_close(network[1].running_mean, wanted.detach())


def test_nothing_else_is_touched_and_nothing_drawn(network: nn.Module) -> None:
    before, momenta = state(network), [norm.momentum for norm in batch_norms(network).values()]
    chance = torch.get_rng_state()
    found = recalibrate(network, forward, IMAGES.split(40))
    assert torch.equal(chance, torch.get_rng_state())
    after = state(network)
    assert set(found) == {
        f"{name}.{part}" for name in PAIRS.values() for part in ("running_mean", "running_var", "num_batches_tracked")
    }
    assert same(found, after, found) and not same(before, after, found)
    assert same(before, after, before.keys() - found.keys())
    assert not any(module.training for module in network.modules())
    assert [norm.momentum for norm in batch_norms(network).values()] == momenta
    assert not any(norm._forward_pre_hooks for norm in network.modules())


def test_it_can_be_done_again_with_the_same_outcome(network: nn.Module) -> None:
    first = recalibrate(network, forward, IMAGES.split(40))
    second = recalibrate(network, forward, IMAGES.split(40))
    assert same(first, second, first)


def test_a_scale_of_output_channels_is_taken_back(network: nn.Module) -> None:
    spoilt = copy.deepcopy(network)
    with torch.no_grad():
        for name in ("0", "4", "7"):
            weight = spoilt.get_submodule(name).weight
            weight *= torch.linspace(2, 5, len(weight)).view(-1, 1, 1, 1)
        recalibrate(network, forward, [IMAGES])
        before = spoilt(IMAGES)
        recalibrate(spoilt, forward, [IMAGES])
        wanted, found = network(IMAGES), spoilt(IMAGES)
    # Not to the bit: eps is added to another variance.
    torch.testing.assert_close(found, wanted, rtol=1e-2, atol=1e-2)
    assert (before - wanted).abs().max() > 1


def test_in_three_dimensions_and_one() -> None:
    torch.manual_seed(0)
    deep, flat = nn.Sequential(nn.BatchNorm3d(1)), nn.Sequential(nn.BatchNorm1d(1))
    for model, given in ((deep, IMAGES[:, :, None]), (flat, IMAGES.flatten(2))):
        recalibrate(model.eval(), forward, [given])
        torch.testing.assert_close(model[0].running_mean, IMAGES.mean().view(1))
        torch.testing.assert_close(model[0].running_var, IMAGES.var().view(1))


class Twice(nn.Module):
    """A batch norm that is called twice, and one that never is."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.idle = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1), nn.BatchNorm2d(1)
        nn.init.constant_(self.idle.running_mean, 3)

    def forward(self, x: Tensor) -> Tensor:
        first: Tensor = self.norm(self.conv(x))
        return first + self.norm(3 * x + 1)


def test_one_that_is_called_twice_averages_both_and_one_that_never_is_stays() -> None:
    torch.manual_seed(0)
    model = Twice().eval()
    found = recalibrate(model, forward, IMAGES.split(32))
    wanted = (model.conv(IMAGES).mean() + (3 * IMAGES + 1).mean()) / 2
    torch.testing.assert_close(found["norm.running_mean"], wanted.detach().view(1))
    assert float(found["idle.running_mean"]) == 3


def test_one_without_running_statistics_has_none_to_estimate() -> None:
    torch.manual_seed(0)
    free = nn.BatchNorm2d(4, track_running_stats=False)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), free, nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4, affine=False)).eval()
    assert {name.partition(".")[0] for name in recalibrate(model, forward, [IMAGES])} == {"3"}
    with pytest.raises(CellError, match=r"no batch norm with running statistics .*allowed here: bn: keep"):
        recalibrate(model[:2], forward, [IMAGES])
    with pytest.raises(CellError, match="no batch norm follows"):
        fold(model[:2], forward, [IMAGES])


def test_a_single_value_has_no_variance(network: nn.Module) -> None:
    before = state(network)
    with pytest.raises(CellError, match=r"'8' gets one value a channel .*allowed here: more samples"):
        recalibrate(network, forward, [IMAGES[:1]])
    assert not any(module.training for module in network.modules())
    assert same(before, state(network), [name for name in before if name.startswith(("8.", "11."))])


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_folding_keeps_the_logits(network: nn.Module, memory_format: torch.memory_format) -> None:
    network = network.to(memory_format=memory_format)
    before = state(network)
    found = fold(network, forward, IMAGES.split(40))
    assert found.norms == PAIRS
    with torch.no_grad():
        torch.testing.assert_close(found.model(IMAGES), network(IMAGES), rtol=1e-4, atol=1e-5)
    assert not batch_norms(found.model)
    assert same(before, state(network), before)
    for name in PAIRS:
        weight, kept = found.model.get_submodule(name).weight, network.get_submodule(name).weight
        assert found.model.get_submodule(name).bias is not None
        assert weight.stride() == kept.stride() and not torch.equal(weight, kept)


def test_a_folded_model_has_nothing_more_to_fold(network: nn.Module) -> None:
    found = fold(network, forward, [IMAGES])
    with pytest.raises(CellError, match=r"^the model has no batch norm that could be folded"):
        fold(found.model, forward, [IMAGES])
    with pytest.raises(CellError, match="no batch norm with running statistics"):
        recalibrate(found.model, forward, [IMAGES])


def test_what_was_folded_can_be_put_into_the_model_again(network: nn.Module) -> None:
    found = fold(network, forward, [IMAGES])
    for name, norm in found.norms.items():
        folded = found.model.get_submodule(name)
        put_folded(network, name, norm, folded.bias, folded.weight)
    with torch.no_grad():
        assert torch.equal(network(IMAGES), found.model(IMAGES))


class Branching(nn.Module):
    """Two convolutions with batch norms; the output of one is what `other` makes use of too."""

    def __init__(self, other: nn.Module) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)
        self.conv, self.last, self.other = nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), other

    def forward(self, x: Tensor) -> Tensor:
        branch = self.stem(x)
        normed: Tensor = self.norm(branch)
        logits: Tensor = self.last(self.conv(normed + self.other(branch))).mean(dim=(2, 3))
        return logits


@pytest.mark.parametrize("other", [nn.ReLU(), nn.Identity(), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)], ids=str)
def test_an_output_that_another_module_takes_too_is_not_folded(other: nn.Module) -> None:
    torch.manual_seed(0)
    found = fold(settled(Branching(other)), forward, [IMAGES])
    assert found.norms == {"conv": "last"}
    assert isinstance(found.model.norm, nn.BatchNorm2d)


class Hidden(nn.Module):
    """An output that is used again without a module."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        made = self.conv(x)
        normed: Tensor = self.norm(made)
        return (normed + made).mean(dim=(2, 3))


def test_an_output_that_is_used_again_without_a_module_is_noticed_by_the_logits() -> None:
    torch.manual_seed(0)
    with pytest.raises(CellError, match=r"outputs differ by .*allowed here: bn: keep, recalibrate"):
        fold(settled(Hidden()), forward, [IMAGES])


class InPlace(Hidden):
    """An output that is changed in place before the batch norm."""

    def forward(self, x: Tensor) -> Tensor:
        made = self.conv(x)
        normed: Tensor = self.norm(made.relu_())
        return normed.mean(dim=(2, 3))


class Shared(Hidden):
    """A convolution that is called twice, once with the batch norm behind it."""

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = self.norm(self.conv(x))
        return (normed + self.conv(x.flip(3))).mean(dim=(2, 3))


class Lengths(nn.Module):
    """A linear layer on tokens with a batch norm that normalises the places, of which there are as many as features."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(8, 8), nn.BatchNorm1d(8)

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = self.norm(self.linear(x.flatten(1, 2)))
        return normed.mean(dim=2)


def pre_activation() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3))


@pytest.mark.parametrize("make", [Twice, InPlace, Shared, Lengths, pre_activation])
def test_what_cannot_be_folded_is_refused(make: Any) -> None:
    torch.manual_seed(0)
    with pytest.raises(CellError, match=r"^no batch norm follows a Conv2d or Linear layer directly .allowed here"):
        fold(settled(make()), forward, [IMAGES])


def test_tied_weights_are_not_folded() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 1, 3), nn.BatchNorm2d(1), nn.Conv2d(1, 1, 3), nn.BatchNorm2d(1))
    model[2].weight = model[0].weight
    with pytest.raises(CellError, match="no batch norm follows"):
        fold(settled(model), forward, [IMAGES])


def test_a_batch_norm_with_two_names_is_gone_under_both() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))
    model.also = nn.Sequential(model[1])
    put_folded(model, "0", "1", torch.zeros(4))
    assert not batch_norms(model)

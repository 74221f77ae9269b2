"""Landscapes as models: weights whose loss is a known function, so that the truth about a method can be known too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from qbench.tasks.model_spec import ModelSpec

if TYPE_CHECKING:
    from qbench.geometry.landscape_cases import Setting
    from qbench.geometry.valley_task import ValleyTask


class Valley(ModelSpec):
    """Base of the landscapes: a model of one row of weights, whose loss depends on nothing else.

    Attributes
    ----------
    metric : str
        What second-order methods take for the Hessian, by way of the calibration inputs: ``hessian``, the one in the
        basin; ``normal``, an oracle's, which knows where the wall is (see `Landscape.metric_factor`).
    noise : float
        Standard deviation of the noise on each weight's gradient in training, drawn for each batch, whatever its size.
    """

    sources: ClassVar[tuple[str, ...]] = (
        "qbench.geometry.landscape",
        "qbench.geometry.landscape_cases",
        "qbench.geometry.landscape_theory",
        "qbench.geometry.valley_task",
        "qbench.tasks.evaluation",
    )

    metric: Literal["hessian", "normal"] = "hessian"
    noise: Annotated[float, Field(ge=0)] = 0.0

    def setting(self, seed: int) -> Setting:
        """Return the numbers of the landscape."""
        raise NotImplementedError

    @property
    def tolerance(self) -> float:
        """The excess loss up to which a point counts as inside the basin."""
        raise NotImplementedError

    @property
    def is_seeded(self) -> bool:
        """Whether another seed gives another landscape, or other noise in training."""
        return self.noise > 0

    def load(self, seed: int, device: str) -> ValleyTask:  # type: ignore[override]
        """Return the landscape as a task; see `ModelSpec.load`."""
        from qbench.geometry.valley_task import ValleyTask

        return ValleyTask(self, seed, device)

    def prepare(self) -> None:
        """Do nothing: there is nothing to fetch."""

    def has_batch_norm(self) -> bool:
        """Return False: there is one row of weights."""
        return False

    def fingerprint(self, seed: int) -> dict[str, str]:
        """Return a hash of the landscape's numbers."""
        return {"landscape": self.setting(seed).sha256()}


class ValleyCase(Valley):
    """One of the cases A, B and C in two dimensions, by name; the same for all seeds, but for the noise.

    Attributes
    ----------
    reverse : bool
        Whether the two weights change places, for methods that treat the first one first.
    """

    reverse: bool = False

    def setting(self, seed: int) -> Setting:
        """Return the case's numbers."""
        from qbench.geometry.landscape_cases import CASES

        found = CASES[self.name][0]()
        return found.reversed() if self.reverse else found

    @property
    def tolerance(self) -> float:
        """The excess loss up to which a point counts as inside the basin."""
        from qbench.geometry.landscape_cases import CASES

        return CASES[self.name][1]


class RiverValley(Valley):
    """A landscape of many dimensions, whose directions are drawn at random by the cell's seed.

    Attributes
    ----------
    dimension, visible, flat : int
        All directions, those with visible curvature, and the flat ones with a wall; the others are the river's.
    curvature : float
        Of the visible directions, lambda.
    eps : float
        The curvature of the flat directions in the basin is ``eps / rho^2``.
    wall, rho : float
        The wall's slope G, and its distance from the river.
    offset : float
        Distance of the weights from the river.
    slope : float
        Fall of the loss along the river.
    curve : float
        How the river bends: by ``curve / 2`` after one unit of length.
    """

    dimension: Annotated[int, Field(ge=2, le=4096)] = 256
    visible: Annotated[int, Field(ge=0)] = 64
    flat: Annotated[int, Field(ge=1)] = 64
    curvature: Annotated[float, Field(gt=0)] = 0.02
    eps: Annotated[float, Field(gt=0)] = 1e-4
    wall: Annotated[float, Field(gt=0)] = 1.0
    rho: Annotated[float, Field(gt=0)] = 1.0
    offset: Annotated[float, Field(ge=0)] = 0.6
    slope: Annotated[float, Field(ge=0)] = 0.0
    curve: float = 0.0

    @model_validator(mode="after")
    def _the_parts_fit(self) -> Self:
        used = self.visible + self.flat
        if used > self.dimension:
            raise ValueError(f"visible and flat are {used} directions, more than dimension {self.dimension}")
        if used == self.dimension and (self.slope or self.curve):
            raise ValueError(f"visible and flat leave no river of dimension {self.dimension} to fall along or to bend")
        if self.offset >= self.rho:
            raise ValueError(f"offset {self.offset:g} lies outside the basin (allowed: below rho, {self.rho:g})")
        return self

    def setting(self, seed: int) -> Setting:
        """Return the landscape that a seed draws."""
        from qbench.geometry.landscape_cases import random_valley

        return random_valley(
            self.dimension,
            self.visible,
            self.flat,
            seed,
            offset=self.offset,
            curvature=self.curvature,
            flatness=self.eps,
            rho=self.rho,
            wall=self.wall,
            slope=self.slope,
            curve=self.curve,
        )

    @property
    def tolerance(self) -> float:
        """The excess loss up to which a point counts as inside the basin."""
        return 0.02 * self.wall * self.rho

    @property
    def is_seeded(self) -> bool:
        """True: the seed draws the directions."""
        return True

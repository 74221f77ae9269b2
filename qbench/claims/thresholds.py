"""Every number a verdict turns on, in one place, fixed before any suite was run.

The verdict rules are those of the claims' own pages; where a rule was open, the choice made here says why.
"""

from __future__ import annotations

SEEDS = 3
"""Training seeds below which a claim about a model is at most inconclusive: two that agree may do so by chance."""

TOLERANCE = 0.05
"""Nats a token above full precision that count as nothing."""
TOLERANCE_OF_IMAGES = 0.02
"""Share of ``L_chance - L_fp`` that counts as nothing of a classifier: where it knows everything its loss is small."""
RESOLUTION_SE = 3.0
"""Standard errors below which an excess counts as nothing, and by which one has to lie above what counts as failure."""
FAILURE = 10.0
FAILURE_OF_CHANCE = 0.1
"""Failure is the larger of ten tolerances and a tenth of the way to chance. Not of ten tau: a row's standard error
grows in proportion to its excess (documents differ in what they lose), so that thirty of them are never exceeded where
it is above 3 % of it, however much is lost."""
EXACT_FAILURE = 3.0
"""Tolerances from which an excess is a failure where a task states its own: its loss has no sampling error."""

FINE_BITS = 8
"""The fine grid of C1, C7 and C12: at 8 bits no network here loses anything."""
COARSE_BITS = 2
"""Where C1 and C4 expect failure: the coarsest grid that every integer quantizer has."""

# C1
BITWIDTHS = 4
"""Bitwidths that a monotone rise is read from: with three, one step decides."""
RISE = (0.1, 0.9)
"""Shares of the range between which the rise is measured."""
RISE_FACTOR = 3.0
"""Step sizes within which a sharp rise happens; a bowl (D ~ step^2) takes exactly 3 from 10 to 90 %, so a rise within
3 is steeper than a bowl with the same ends."""
POWER_LAW_SLOPE = 2.3
"""A bowl has slope 2; .3 is what a mean over layers and saturation at the upper end add."""
POWER_LAW_RESIDUAL = 0.15
"""Root mean square of ln D about one straight line, below which it is one slope (ours: 15 % of D, about the sampling
error of D at tau)."""
SATURATION = 0.5
"""Share of the range above which no slope is fitted."""
MONOTONE_SE, NOT_MONOTONE_SE = 1.0, 3.0
"""A fall below 1 SE is none, above 3 SE it is one."""

# C2
NOISE_RATIO = (2 / 3, 3 / 2)
NOISE_RATIO_REFUTED = (1 / 2, 2.0)

# C3
UNDERESTIMATE = 3.0
UNDERESTIMATE_OF_INSIDE = 2.0
UNDERESTIMATE_REFUTED = 1.5

# C5
WITNESS_DISTANCE = 2.0
WITNESS_DISTANCE_REFUTED = 4.0

# C6
BARRIER = 0.25
BARRIER_REFUTED = 1.0
CONVEX_MIDDLE = 0.5
"""A rise is convex when half way it is at most half of its end (ours: the chord, at its middle)."""

# C7
INWARD_OF_LATENT = 2.0
NORM_RATIO = 5.0
MANY_WEIGHTS = 100
"""Weights below which sign flips are no null (ours): their cosine has the deviation 1/sqrt(weights), here .1."""

# C8
DEPLOYED_FALL = 0.5
LATENT_SHARE = 0.1
ORDINARY_CORRELATION = 0.9
ORDINARY_SIZES = (0.5, 2.0)
"""Falls of similar size (ours): within a factor 2."""
TRAJECTORY_START = 0.25
"""A trajectory begins at the rounding when its first deployed loss is within this share of round-to-nearest's (ours:
the held-out data may be fewer than the cell's)."""

# C9, C9b
RECOVERY = 0.5
LATENT_RECOVERY = 0.25
LATENT_RECOVERY_REFUTED = 0.8
NOISE_RECOVERY = 0.5
NOISE_NEAR_LATENT = 0.1
"""Shares of G_qat within which two arms recover alike (ours)."""

# C10
RATES = 4
"""Rates of plain SGD that have to be run."""
RATES_ENTERED = 3
"""Rates with an entry, not at once, that a slope is fitted to (ours: two points have no residual)."""
FIRST_ENTRY = 2.0
"""Steps to entry from which the rate counts as small (ours: an entry in one step would be one at any larger rate)."""
ENTRY_SLOPE = (-1.3, -0.7)
BUDGET_FACTOR = 10.0

# C11
LATTICES = 3
"""Step sizes past failure that a trend is read from."""
LATE = 0.8
"""Late is the last fifth of training, in which trajectories are measured at even distances."""
STAYS_INSIDE = 0.9
"""Share of late steps inside at which recovery is as good as it can be (ours)."""

# C13
SECOND_ORDER_RMS = (0.36, 0.5)
NEAREST_RMS = 0.289
TOP_OF_ALL = 0.5
"""Share of all directions above which the steepest ones are not few (ours)."""
EQUAL = 0.05
"""Distances and shares are equal within 5 % (ours)."""

# C14
CHECKPOINTS = 5
TOGETHER = 0.8
APART = 0.0

# Checks of the theorem, on landscapes
INVERSE_LAW = 0.1
INVERSE_LAW_REFUTED = 0.3
EXIT_ERROR = 0.05
"""Of the root mean square over seeds: the formula is of E|z_F|^2, about which a single seed's value scatters."""
EXIT_ERROR_REFUTED = 0.1
EXIT_DIMENSIONS = 256
"""Dimensions from which the norm of a rounding error concentrates enough for a prediction within 5 %."""
LATENT_UNMOVED = 0.01
LATENT_MOVED = 0.1
"""Shares of the excess that the gradient at the latent weights may recover, and must not (ours)."""

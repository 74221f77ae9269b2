"""C8: the deployed loss falls, the latent need not."""

from __future__ import annotations

from qbench.claims import thresholds as limits
from qbench.claims.base import Claim, Outcome, SeedVerdict
from qbench.claims.curves import correlation
from qbench.claims.failing import Site, at_failure
from qbench.claims.numbers import nats, short
from qbench.claims.subject import LackingError
from qbench.claims.trajectories import Trajectory, has_trajectory, trajectory


def _judge(site: Site) -> SeedVerdict:
    way, rounded = _way(site), site.rounded.excess
    fall = way.deployed[0] - way.deployed[-1]
    # The latent loss may rise again: its deepest point says most for ordinary fine-tuning.
    latent = way.latent[0] - min(way.latent)
    deployed_falls = [way.deployed[0] - one for one in way.deployed[1:]]
    latent_falls = [way.latent[0] - one for one in way.latent[1:]]
    together = correlation(deployed_falls, latent_falls)
    least, most = limits.ORDINARY_SIZES
    outcome: Outcome = "inconclusive"
    if fall > limits.DEPLOYED_FALL * rounded and latent < limits.LATENT_SHARE * fall:
        outcome = "supports"
    elif (
        together > limits.ORDINARY_CORRELATION
        and fall > 3 * way.deployed_se[-1]
        and least * fall < latent < most * fall
    ):
        outcome = "refutes"
    why = (
        f"while {way.cell.label} trains, D of the deployed weights falls from {nats(way.deployed[0])} to "
        f"{nats(way.deployed[-1])}, {short(fall / rounded)} of rounding's, and the latent loss by {nats(latent)} at "
        f"most, ending {nats(way.latent[-1])} from full precision; correlation of the falls {short(together)}"
    )
    return site.verdict(outcome, why, fall_deployed=fall, fall_latent=latent, correlation=together)


def _way(site: Site) -> Trajectory:
    """Return the trajectory that ends best; it has to begin at the rounded weights."""
    cells = [one for one in site.subject.arms(site.seed, site.bits, "ste_qat") if one.options.get("learning_rate") != 0]
    watched = [one for one in cells if has_trajectory(one)]
    if not watched:
        raise LackingError(f"ste_qat with a trajectory at {site.bits} bits")
    way = trajectory(site.subject, min(watched, key=lambda one: (one.excess, one.label)))
    if len(way.step) < 3:
        raise LackingError(f"three moments or more in the trajectory of {way.cell.label} at {site.bits} bits")
    away, allowed = way.deployed[0] - site.rounded.excess, limits.TRAJECTORY_START * site.rounded.excess
    if abs(away) > max(allowed, site.rounded.tau):
        raise LackingError(
            f"a trajectory of {way.cell.label} that begins at the rounded weights at {site.bits} bits "
            f"(D {nats(way.deployed[0])} at step 0, rtn {nats(site.rounded.excess)})"
        )
    return way


CLAIM = Claim(
    id="C8",
    title="in QAT the deployed loss falls first, the latent loss need not",
    source="readers",
    supports="in training the deployed loss falls by more than half of rounding's excess, while the latent loss never "
    "is lower by a tenth of that fall",
    refutes="both fall by similar amounts (within a factor 2) and their falls correlate above .9: ordinary fine-tuning",
    needs="rtn; ste_qat on the frozen grid with a trajectory, at failing bits",
    judge=at_failure(_judge),
)

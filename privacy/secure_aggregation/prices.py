"""What a grant for secure sums pays for: the events of its rounds and of its evaluation, the same for who grants and who checks it."""

from federation.messages import SecureGrant
from federation.study import SecurePlan
from privacy.events import SecureSum

MOST_COUNTS = 128
"""Integers in an evaluation's sum, at most: two labels in 64 bins. The price is that of so many, however few a study has."""


def sums_of(secure: SecureGrant, plan: SecurePlan, sampling_rate: float, steps: int) -> tuple[SecureSum, SecureSum]:
    """Return the event of a study's rounds, and that of its evaluation: by the noise that surely counts, the plan's `bearers`.

    Parameters
    ----------
    sampling_rate, steps:
        Of the training; the evaluation is one sum over everybody held out.

    Raises
    ------
    pydantic.ValidationError
        Where no noise fits.
    """
    training = SecureSum(
        sigma=plan.sigma,
        members=plan.bearers,
        sensitivity=secure.sensitivity,
        sampling_rate=sampling_rate,
        steps=steps,
        dimension=secure.dimension,
    )
    return training, counts_of(plan, secure.histogram_scale)


def counts_of(plan: SecurePlan, scale: int) -> SecureSum:
    """Return the event of one sum of histograms whose counts are multiplied by `scale`."""
    return SecureSum(
        sigma=plan.sigma,
        members=plan.bearers,
        sensitivity=float(scale),
        sampling_rate=1.0,
        steps=1,
        dimension=MOST_COUNTS,
    )

"""What the common work of the peers costs a customer; apart from `work.py`, which a peer without this project's packages imports too."""

from work import DELTA, Work

from privacy.accounting import epsilon
from privacy.events import SubsampledGaussian


def epsilon_of(work: Work) -> float:
    """Return the epsilon of a customer at delta = 1e-5 after all rounds, rounded up."""
    steps = work.rounds * work.local_steps
    event = SubsampledGaussian(noise_multiplier=work.noise, sampling_rate=work.rate, steps=steps)
    return epsilon([event], DELTA)

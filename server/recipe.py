"""The rule that sets a training run's numbers from public quantities alone, and the coordinator's steps that follow from it.

Users cannot tune: every trial costs budget. So everything here is a function of declared sizes, granted noise and the network's width, with
one set of constants for all data. Linear models train in three parts; only sums that the vaults protected are ever read.

*Two probes* (`probe_weights`, `read_probes`). With all weights zero and the bias at -ln 3, then +ln 3, every customer's predicted chance is 1/4, then 3/4, so
the two mean gradients are (1/4)m - E[yx] and (3/4)m - E[yx]: their difference gives the mean encoded row m, their average the base rate r. It costs two rounds of thirty-two.

*A start* (`start_weights`). Of all weights that give the average customer the base rate, those of least norm: w = L m / (|m|^2 + 1), bias L - w m + ..., L = ln(r/(1-r)).
It is where unclipped gradient descent from zero first arrives, without the oscillation on the way; a kind of customer that nobody has seen keeps even odds.

*Descent* (`descend`). Gradient steps in centred coordinates, g_w - m g_b: the intercept no longer drags on the features, and the curvature that limits the step
falls from the mean direction's to the covariance's. Everything is post-processing of the released sums.

*The step.* In a direction without curvature, T steps of size eta on gradients with noise s leave noise eta s sqrt(T) in a weight. The rule stops where that reaches
NOISE_IN_WEIGHTS, the size that a weight may be expected to have (rows have norm 4): eta = NOISE_IN_WEIGHTS / (s sqrt(T)). As s sqrt(T) hardly depends on q and T
at a given budget, more rounds neither help nor hurt, and the rule is early stopping matched to the budget (Yao, Rosasco and Caponnetto 2007, for the equivalence with ridge; DP noise in place of sampling noise).
Where it asks for more than is stable, the step is cut to 1 / (CURVATURE r (1 - r)) and momentum makes up for it (Polyak 1964). The last half is averaged (Jain et al. 2018).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from federation.basis import ROW_NORM

Mode = Literal["fedsgd", "fedavg"]
Vector = NDArray[np.float64]

PROBES = 2
PROBE_LOGIT = math.log(3.0)
_DESCENT_STEPS = 30
_LOCAL_STEPS = 2
_SAMPLING_RATE = 0.3
CLIP = 2.4
# |p - y| is at most 3/4 in a probe and the row with its intercept has norm at most sqrt(ROW_NORM^2 + 1): nothing is clipped, nothing is biased.
PROBE_CLIP = 0.75 * math.sqrt(ROW_NORM**2 + 1.0)
NOISE_IN_WEIGHTS = 0.15
_CURVATURE = 0.15 * ROW_NORM**2
_MOMENTUM = 0.9
_LEAST_WEIGHT = 0.25
_LEAST_RATE = 0.01

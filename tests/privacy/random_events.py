"""Random events and mixes of all kinds, for property tests."""

from hypothesis import strategies as st

from privacy.events import DiscreteGaussianHistogram, DiscreteLaplaceHistogram, SecureSum, SubsampledGaussian

GAUSSIANS = st.builds(
    SubsampledGaussian,
    noise_multiplier=st.floats(0.8, 8.0),
    sampling_rate=st.sampled_from([0.01, 0.1, 0.5, 1.0]),
    steps=st.integers(1, 40),
)
HISTOGRAMS = st.builds(
    DiscreteGaussianHistogram, sigma=st.floats(1.0, 50.0), count=st.integers(1, 5), scale=st.sampled_from([1, 3])
)
LAPLACE = st.builds(DiscreteLaplaceHistogram, scale=st.floats(1.0, 50.0), count=st.integers(1, 20))
SUMS = st.builds(
    SecureSum,
    sigma=st.floats(200.0, 1e4),
    members=st.integers(1, 20),
    sensitivity=st.floats(20.0, 200.0),
    sampling_rate=st.sampled_from([0.05, 0.3]),
    steps=st.integers(1, 40),
    dimension=st.integers(1, 1000),
)
RUNS = GAUSSIANS | HISTOGRAMS | LAPLACE | SUMS
MIXES = st.lists(RUNS, min_size=1, max_size=5)

"""The vectorized engine: all institutions of a simulation together, as a few large array operations instead of many small ones."""

from simulations.engines.vectorized.engine import Vectorized

__all__ = ["Vectorized"]

"""A synthetic population of bank and shop customers, for scales that no public data set has: seeded, and nobody in it is real."""

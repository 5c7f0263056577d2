"""Simulated partners: customers of public, synthetic or own test data, dealt out to institutions and seated for an engine."""

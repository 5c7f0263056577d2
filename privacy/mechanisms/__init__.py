"""Mechanisms that turn an exact value into a release."""

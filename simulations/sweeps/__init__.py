"""Sweeps: many simulated studies from one file, computed side by side, kept one by one, and gone on with after an interruption."""

"""Simulated federated training: one study, several engines that give the same result."""

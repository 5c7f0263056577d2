"""What the coordinator asks of a federation's customers, and what it makes of the noisy sums."""

"""Many institutions on one machine: data sets, partitions, the in-process grid, the demo."""

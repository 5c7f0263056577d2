"""The coordinator: planning, aggregation, evaluation, checkpoints, registry and its commands."""

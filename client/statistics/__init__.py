"""What a vault counts for statistics studies."""

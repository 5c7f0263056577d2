"""The commands of `consilience officer`, one module for each part of a compliance officer's day."""

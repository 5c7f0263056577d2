"""The institution: vault, sources, features, training, scoring and its commands."""

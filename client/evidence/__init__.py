"""Evidence packs: one signed file from which a stranger can check what an institution's vault spent, on what, and why."""

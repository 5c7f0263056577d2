"""An institution's service: a SuperNode that talks to the coordinator, and the vault's worker that answers, kept alive by a supervisor."""

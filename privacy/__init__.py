"""Policy, accounting, filter, ledger, mechanisms, DP training and audits."""

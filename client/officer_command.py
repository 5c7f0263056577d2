"""The group `consilience officer`: a compliance officer's working day, from the policy to the evidence."""

import typer

from client.officer import approvals, budget, calibrate, custody, entries, keys, policy, proof, withdraw, witness

app = typer.Typer(
    no_args_is_help=True,
    help="For compliance officers. Begin with `init` (your own key) and `policy new`, `policy sign`, `policy activate`; then `inbox` and "
    "`approve`, `budget`, `ledger`, `evidence`. Commands work on the home in the current folder, or named by --home or CONSILIENCE_HOME.",
)
policy_app = typer.Typer(no_args_is_help=True, help="The policy: what the institution's vault may do.")

keys.register(app)
policy.register(policy_app)
app.add_typer(policy_app, name="policy")
for module in (approvals, budget, calibrate, entries, proof, witness, custody, withdraw):
    module.register(app)

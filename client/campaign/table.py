"""The public form of a closed campaign: a table in the columns of the campaign contract, and the lines of node.yaml that map it."""

import json

import numpy as np
import pyarrow as pa

from client.campaign.draw import CONTROL
from client.campaign.store import Campaign, Floats
from federation.errors import DataError, PolicyError

CONTRACT = "campaign"
COLUMNS = ("arm", "chosen_by", "decile", "segment", "visit", "retained", "spend", "cost")
LABEL = "conversion"
UNIT = "euro"


def table_of(campaign: Campaign) -> pa.Table:
    """Return a closed campaign's members whose outcome is known: `customer`, the contract's `COLUMNS`, and its label.

    Arms are called arm_1 to arm_4, in the design's order. Flags are `yes`, `no` or empty; money is in the campaign's own unit.

    Raises
    ------
    PolicyError
        CSL-C788 while the campaign is not closed.
    DataError
        CSL-C793 when no outcomes are in.
    """
    if campaign.record.closed is None:
        raise PolicyError(
            "CSL-C788",
            f"The campaign {campaign.name} is not closed: its outcomes may still change.",
            "Close it by `consilience node campaign close`.",
        )
    if campaign.outcomes is None:
        raise DataError(
            "CSL-C793",
            "There is nothing to count: no outcomes are in.",
            "Bring the outcomes in by `consilience node campaign outcomes`.",
        )
    found = campaign.outcomes.take(campaign.outcomes.known)
    members = [member for member, known in zip(campaign.members, campaign.outcomes.known, strict=True) if known]
    arms = public_arms(campaign)
    return pa.table(
        {
            "customer": pa.array([member.customer for member in members], pa.string()),
            "arm": pa.array([arms[member.arm] for member in members], pa.string()),
            "chosen_by": pa.array([member.chosen_by for member in members], pa.string()),
            "decile": pa.array([member.decile for member in members], pa.int8()),
            "segment": pa.array([member.segment for member in members], pa.string()),
            "visit": _flags(found.visit),
            "retained": _flags(found.retained),
            "spend": pa.array(found.spend, pa.float64(), from_pandas=True),
            "cost": pa.array([campaign.record.design.cost_of(member.arm) for member in members], pa.float64()),
            LABEL: _flags(found.conversion),
        }
    )


def public_arms(campaign: Campaign) -> dict[str, str]:
    """Return the contract's name for each of the campaign's own arms, `control` among them."""
    numbered = {arm.name: f"arm_{number}" for number, arm in enumerate(campaign.record.design.arms, start=1)}
    return {CONTROL: CONTROL, **numbered}


def mapping_lines(campaign: Campaign, path: str) -> str:
    """Return what to paste under `contracts:` in node.yaml; `path` is the table's, relative to the home.

    Outcomes that the campaign does not know are left out of it. Money in another unit than the contract's needs a conversion, which
    the lines ask for.
    """
    unit = campaign.record.design.unit
    money = f"unit: {unit}" if unit == UNIT else f"unit: {json.dumps(unit)}, scale: 1.0"
    hint = "" if unit == UNIT else f"    # scale: {UNIT} in one {unit}; 1.0 is a placeholder"
    spoken = campaign.record.outcomes.spoken_of if campaign.record.outcomes is not None else ()
    lines = [
        f"  {CONTRACT}:",
        "    kind: table",
        f"    source: {{kind: parquet, path: {path}}}",
        "    customer: customer",
        "    columns:",
        *(f"      {name}: {{column: {name}}}" for name in ("arm", "chosen_by")),
        "      decile: {column: decile, unit: tenth}",
        "      segment: {column: segment}",
        *(f"      {name}: {{column: {name}}}" for name in ("visit", "retained") if name in spoken),
        *(["      spend: {column: spend, " + money + "}" + hint] if "spend" in spoken else []),
        "      cost: {column: cost, " + money + "}" + hint,
        f'    label: {{column: {LABEL}, yes: ["yes"], no: ["no"]}}',
    ]
    return "\n".join(lines) + "\n"


def _flags(values: Floats) -> pa.Array:
    return pa.array([None if np.isnan(value) else ("yes" if value else "no") for value in values], pa.string())

"""Ten million purchases of half a million customers to RFM features: time and memory, against pandas on the same log.

Each way runs in a process of its own, so that its peak memory is its own; the log comes from a seeded generator.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from client.cohort import load_cohort
from client.config import load_node
from federation.charter import Declaration
from federation.contract import FeatureContract
from federation.document import load_yaml

ROOT = Path(__file__).resolve().parent.parent
CONTRACT = ROOT / "configs" / "contracts" / "rfm.yaml"
AS_OF, WINDOW, HORIZON = date(2025, 10, 1), 365, 91
FIRST = np.datetime64("2024-09-01")
DAYS = int((np.datetime64("2026-01-01") - FIRST).astype(int))
CHANNELS = ["web", "app", "store", "phone"]
CHUNK = 1_000_000
NODE = """
member: bench
memory_mb: {memory}
threads: 2
contracts:
  rfm:
    kind: transactions
    source: {{kind: parquet, path: log.parquet}}
    customer: customer
    time: {{column: time}}
    amount: {{column: amount, unit: euro}}
    typical_basket: {{amount: 40.0, unit: euro}}
    category: channel
    complete_until: 2026-01-01
consent:
  layout: columns
  source: {{kind: parquet, path: consent.parquet}}
  customer: customer
  purposes: {{churn_retention: agreed}}
"""


def write_log(home: Path, rows: int, customers: int, memory: int) -> None:
    """Write a home folder with a log of `rows` purchases, about 1 in 10 customers without consent."""
    source = np.random.default_rng(7)
    activity = np.cumsum(source.gamma(0.7, size=customers))
    schema = pa.schema(
        [("customer", pa.string()), ("time", pa.timestamp("s")), ("amount", pa.float64()), ("channel", pa.string())]
    )
    with pq.ParquetWriter(home / "log.parquet", schema) as writer:
        for start in range(0, rows, CHUNK):
            count = min(CHUNK, rows - start)
            who = np.searchsorted(activity, source.random(count) * activity[-1])
            when = FIRST + source.integers(0, DAYS * 86_400, count).astype("timedelta64[s]")
            spent = np.round(source.lognormal(3.4, 0.8, count), 2)
            channel = source.choice(len(CHANNELS), count, p=[0.4, 0.3, 0.25, 0.05])
            names = pa.DictionaryArray.from_arrays(channel, CHANNELS).cast(pa.string())
            ids = pa.array(np.char.add("C", who.astype(str)))
            writer.write_table(pa.Table.from_arrays([ids, pa.array(when), pa.array(spent), names], schema=schema))
    ids = pa.array([f"C{number}" for number in range(customers)])
    agreed = pa.array(np.where(source.random(customers) < 0.9, "yes", "no"))
    pq.write_table(pa.table({"customer": ids, "agreed": agreed}), home / "consent.parquet")
    (home / "node.yaml").write_text(NODE.format(memory=memory))


def ours(home: Path) -> int:
    """Compute the features as a vault does; return the number of customers."""
    contract = load_yaml(CONTRACT, FeatureContract)
    declared = Declaration(contract="rfm", size=1, as_of=AS_OF, window_days=WINDOW, horizon_days=HORIZON)
    cohort, _ = load_cohort(load_node(home / "node.yaml"), contract, declared, "churn_retention", "learn")
    return len(cohort)


def with_pandas(home: Path) -> int:
    """Compute the same features by pandas' group-by; return the number of customers."""
    consent = pd.read_parquet(home / "consent.parquet")
    log = pd.read_parquet(home / "log.parquet")
    log = log[log.customer.isin(set(consent.customer[consent.agreed == "yes"]))]
    log["day"] = log.time.dt.normalize()
    cut = pd.Timestamp(AS_OF)
    before = log[(log.day >= cut - pd.Timedelta(days=WINDOW)) & (log.day < cut)]
    after = log[(log.day >= cut) & (log.day < cut + pd.Timedelta(days=HORIZON))]
    days = before.groupby(["customer", "day"], as_index=False).agg({"amount": "sum"}).sort_values(["customer", "day"])
    days["age"] = (cut - days.day).dt.days.astype(float)
    days["gap"] = days.age.groupby(days.customer).shift(1) - days.age
    oldest = days.age.groupby(days.customer).transform("max")
    days["late"] = np.where(days.gap.isna(), np.nan, np.where(2 * days.age <= oldest, 1.0, -1.0))
    by_customer = days.groupby("customer")
    count, gap = by_customer.size(), by_customer.gap.mean()
    shares = before.groupby(["customer", "channel"]).amount.sum().groupby(level=0)
    features = pd.DataFrame(
        {
            "recency": by_customer.age.min() / WINDOW,
            "frequency": count.astype(float),
            "monetary": by_customer.amount.sum() / count / 40.0,
            "tenure": by_customer.age.max() / WINDOW,
            "gap_mean": gap / WINDOW,
            "gap_spread": (by_customer.gap.std(ddof=0) / gap).where(count >= 3),
            "overdue": by_customer.age.min() / gap,
            "trend": by_customer.late.mean(),
            "main_share": shares.max() / shares.sum(),
        }
    )
    features["lapsed"] = ~features.index.isin(after.customer)
    return len(features)


WAYS = {"consilience": ours, "pandas": with_pandas}


def _child(way: str, home: Path) -> None:
    start = time.perf_counter()
    customers = WAYS[way](home)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"customers": customers, "seconds": seconds, "peak": peak}))


def _measure(way: str, home: Path) -> dict[str, float]:
    command = [sys.executable, str(Path(__file__)), "--way", way, "--home", str(home)]
    done = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, check=True, env=dict(os.environ, PYTHONPATH=str(ROOT))
    )
    result: dict[str, float] = json.loads(done.stdout)
    return result


def main() -> None:
    """Generate the log, measure both ways and print a table; exit 1 when the target of 60 s and 2 GiB is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--customers", type=int, default=None, help="default: one for every 20 rows")
    parser.add_argument("--memory-mb", type=int, default=1024, help="memory_mb in node.yaml")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--way", choices=sorted(WAYS), help=argparse.SUPPRESS)
    parser.add_argument("--home", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.way:
        _child(given.way, given.home)
        return
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        write_log(home, given.rows, given.customers or max(1, given.rows // 20), given.memory_mb)
        found = {way: _measure(way, home) for way in WAYS}
    if found["consilience"]["customers"] != found["pandas"]["customers"]:
        sys.exit("The two ways disagree on the number of customers.")
    if given.json:
        print(json.dumps(found))
    else:
        _print(found, given.rows)
    if found["consilience"]["seconds"] >= 60 or found["consilience"]["peak"] >= 2 * 2**30:
        sys.exit(1)


def _print(found: dict[str, dict[str, float]], rows: int) -> None:
    table = Table(title=f"{rows:,} purchases to RFM features and label (target: 60 s, 2 GiB, 2 cores)")
    for name in ("way", "customers", "seconds", "peak memory, GiB"):
        table.add_column(name, justify="left" if name == "way" else "right")
    for way, item in found.items():
        table.add_row(way, f"{item['customers']:,.0f}", f"{item['seconds']:.1f}", f"{item['peak'] / 2**30:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()

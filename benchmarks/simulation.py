"""How fast federated training is simulated: the vectorized engine beside Flower's Ray engine, pfl, and a plain batched design.

Every run is a process of its own that does the same work (`simulation_peers/work.py`): K institutions of 1,000 customers with 40
columns, DP-FedAvg of 4 local DP-SGD steps a round, drawn by Poisson at rate .25, clipped and noised alike. Peers take turns with ours,
and medians over the turns are compared, so that another program on the machine slows all alike. Start-up (imports, data, Ray itself)
is not counted.

- *Ray*: Flower's simulation engine on Ray with stock Opacus clients; it needs Ray (`pip install 'consilience[ray]'`).
- *pfl*: needs the Python of a virtual environment of its own, which has `pfl==0.6.0` and torch: --pfl PYTHON. Its nearest task is not
  the same; what differs is printed.
- *batched*: parameters [K, P] and padded batches of all institutions at once, as a good first design has it.

Then how cost and memory grow with the number of institutions, one million rows in a thousand institutions, and the sweep of 100 cells
that `configs/simulations/frontier.yaml` describes. With a GPU the same work is run on it too. Exit code 1 when a target is missed.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).resolve().parent
PEERS = HERE / "simulation_peers"
SWEEP = HERE.parent / "configs" / "simulations" / "frontier.yaml"
MODELS = ("logistic", "mlp")
RAY_TARGET = {"logistic": 30.0, "mlp": 10.0}
PFL_TARGET = {"logistic": 5.0, "mlp": 1.0}
"""Of an mlp the products of matrices alone take two fifths of our time, and pfl's task needs hardly fewer: five times is out of reach."""
BATCHED_TARGET = 0.9
"""The plain batched design with few institutions leaves nothing to group: as fast, within what turns differ by."""
SAME_AUC = 0.01
"""By how much two medians of the AUC may differ: noise and draws differ from run to run."""
GROWTH = 1.25
"""By how much the cost of a client-step may rise from 10 to 1,000 institutions before it counts as rising."""
MILLION_SECONDS, SWEEP_SECONDS = 300.0, 600.0
Line = dict[str, Any]


@dataclass(frozen=True)
class Verdict:
    """Whether a target is met, and by what."""

    met: bool
    text: str


def say(text: str) -> None:
    """Write progress to the error output."""
    print(text, file=sys.stderr, flush=True)


def play(script: str, python: str = sys.executable, **options: object) -> Line:
    """Run a peer once and return what it prints."""
    told = [part for name, value in options.items() for part in _option(name, value)]
    done = subprocess.run([python, str(PEERS / script), *told], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{script} {' '.join(told)} failed:\n{done.stderr[-3000:]}")
    found: Line = json.loads(done.stdout.strip().splitlines()[-1])
    say(
        f"  {found['peer']}: {found['model']}, {found['institutions']} institutions, {found['client_steps_per_s']:,.0f} client-steps/s"
    )
    return found


def _option(name: str, value: object) -> list[str]:
    flag = "--" + name.replace("_", "-")
    return [flag] if value is True else [] if value in (None, False) else [flag, str(value)]


def median(lines: Sequence[Line], name: str) -> float:
    """Return the median of one figure over turns."""
    return statistics.median(float(line[name]) for line in lines)


def beside_peers(turns: int, pfl: str | None) -> tuple[list[Line], list[Verdict]]:
    """Run all at 50 institutions and 50 rounds, in turns."""
    rows: list[Line] = []
    verdicts: list[Verdict] = []
    for model in MODELS:
        found: dict[str, list[Line]] = {"ours": [], "ray": [], "pfl": [], "batched": []}
        for turn in range(turns):
            same: dict[str, object] = {"model": model, "institutions": 50, "rounds": 50, "seed": turn}
            found["ours"].append(play("ours.py", **same))
            found["ray"].append(play("ray_opacus.py", **same))
            found["batched"].append(play("batched.py", **same))
            if pfl:
                found["pfl"].append(play("pfl_peer.py", pfl, **same))
        for name, lines in found.items():
            if lines:
                rows.append(_row(model, name, lines, found["ours"]))
        verdicts += _judged(model, found)
    return rows, verdicts


def quick() -> tuple[list[Line], list[Verdict]]:
    """Run ours and the batched design once, for so short a time that the ratio says little."""
    rows: list[Line] = []
    for model in MODELS:
        found = {name: [play(f"{name}.py", model=model, institutions=20, rounds=10)] for name in ("ours", "batched")}
        rows += [_row(model, name, lines, found["ours"]) for name, lines in found.items()]
    return rows, []


def _row(model: str, name: str, lines: Sequence[Line], ours: Sequence[Line]) -> Line:
    speed = median(lines, "client_steps_per_s")
    return {
        "model": model,
        "peer": name,
        "client_steps_per_s": speed,
        "ours_is_faster_by": median(ours, "client_steps_per_s") / speed,
        "auc": median(lines, "auc"),
        "not_equal": lines[0]["not_equal"],
    }


def _judged(model: str, found: Mapping[str, Sequence[Line]]) -> list[Verdict]:
    ours = median(found["ours"], "client_steps_per_s")
    targets = {"ray": RAY_TARGET[model], "pfl": PFL_TARGET[model], "batched": BATCHED_TARGET}
    verdicts = []
    for name, target in targets.items():
        if not found[name]:
            verdicts.append(Verdict(True, f"{model}: {name} not run (name its Python with --pfl)"))
            continue
        ratio = ours / median(found[name], "client_steps_per_s")
        apart = abs(median(found[name], "auc") - median(found["ours"], "auc"))
        verdicts.append(Verdict(ratio >= target, f"{model}: {ratio:.1f} x {name} (target {target:g})"))
        if name != "pfl":
            verdicts.append(
                Verdict(apart <= SAME_AUC, f"{model}: AUC within {apart:.4f} of {name}'s (target {SAME_AUC})")
            )
    return verdicts


def growth(turns: int) -> tuple[list[Line], list[Verdict]]:
    """Run ours and the plain batched design at 10 to 1,000 institutions."""
    rows: list[Line] = []
    verdicts: list[Verdict] = []
    for model, budget in (("logistic", 40_000), ("mlp", 8_000)):
        speeds: dict[int, float] = {}
        for count in (10, 50, 200, 1_000):
            same: dict[str, object] = {"model": model, "institutions": count, "rounds": max(2, budget // (4 * count))}
            ours, plain = [], []
            for turn in range(turns):
                ours.append(play("ours.py", **same, seed=turn))
                if count <= 200:
                    plain.append(play("batched.py", **same, seed=turn))
            speeds[count] = median(ours, "client_steps_per_s")
            row: Line = {"model": model, "institutions": count, "client_steps_per_s": speeds[count]}
            if plain:
                row["batched"] = median(plain, "client_steps_per_s")
                ratio = speeds[count] / row["batched"]
                text = (
                    f"{model}, {count} institutions: {ratio:.2f} x the plain batched design (target {BATCHED_TARGET})"
                )
                verdicts.append(Verdict(ratio >= BATCHED_TARGET, text))
            rows.append(row | {"peak_mib": median(ours, "peak_mib")})
        cost = speeds[10] / speeds[1_000]
        verdicts.append(
            Verdict(
                cost <= GROWTH,
                f"{model}: a client-step at 1,000 institutions costs {cost:.2f} x one at 10 (limit {GROWTH})",
            )
        )
    return rows, verdicts


def memory() -> tuple[list[Line], list[Verdict]]:
    """Compare the memory above an almost empty run with that of the data and the models themselves."""
    rows, empty = [], play("ours.py", institutions=2, rows=10, rounds=2)["peak_mib"]
    for count in (250, 500, 1_000):
        line = play("ours.py", institutions=count, rounds=2)
        data = count * 1_000 * 41 * 4 / 2**20 + count * line["parameters"] * 8 / 2**20
        rows.append({"institutions": count, "above_empty_mib": line["peak_mib"] - empty, "data_and_models_mib": data})
    last, first = rows[-1], rows[0]
    slope = (last["above_empty_mib"] - first["above_empty_mib"]) / (
        last["data_and_models_mib"] - first["data_and_models_mib"]
    )
    return rows, [Verdict(slope <= 3.0, f"memory grows by {slope:.2f} MiB for each MiB of data and models (limit 3)")]


def million() -> tuple[list[Line], list[Verdict]]:
    """1,000 institutions of 1,000 customers, 100 rounds: gradient sums, and a local step."""
    rows, verdicts = [], []
    for sums in (True, False):
        line = play("ours.py", institutions=1_000, rounds=100, local_steps=1, gradient_sums=sums)
        kind = "gradient sums" if sums else "a local step"
        rows.append({"kind": kind, "seconds": line["seconds"], "peak_mib": line["peak_mib"], "auc": line["auc"]})
        text = f"1,000 institutions x 100 rounds on a million rows, {kind}: {line['seconds']:.1f} s (limit {MILLION_SECONDS:g})"
        verdicts.append(Verdict(line["seconds"] < MILLION_SECONDS, text))
    return rows, verdicts


def sweep() -> tuple[list[Line], list[Verdict]]:
    """Run 5 epsilons x 4 partner counts x 5 seeds of the propensity study, start-up and references included."""
    command = Path(sys.executable).parent / "consilience"
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        done = subprocess.run(
            [str(command), "simulate", "sweep", str(SWEEP), "--out", folder, "--workers", "2", "--json"],
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = time.perf_counter() - start
    if done.returncode != 0:
        raise SystemExit(f"The sweep failed:\n{done.stderr[-3000:]}")
    text = f"the sweep {SWEEP.name}: {seconds:.0f} s (limit {SWEEP_SECONDS:g})"
    return [{"seconds": seconds}], [Verdict(seconds < SWEEP_SECONDS, text)]


def on_gpu(turns: int) -> tuple[list[Line], list[Verdict]]:
    """Run the same on a GPU where there is one; it has no target."""
    if not torch.cuda.is_available():
        return [{"note": "no GPU at hand: not run"}], []
    rows = []
    for model in MODELS:
        for count in (50, 1_000):
            lines = [
                play("ours.py", model=model, institutions=count, rounds=50, device="cuda", seed=turn)
                for turn in range(turns)
            ]
            rows.append(
                {"model": model, "institutions": count, "client_steps_per_s": median(lines, "client_steps_per_s")}
            )
    return rows, []


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pfl", metavar="PYTHON", help="python of a virtual environment that has pfl==0.6.0")
    parser.add_argument("--turns", type=int, default=3, help="runs of each, of which medians are taken (default 3)")
    parser.add_argument("--only", choices=("peers", "growth", "memory", "million", "sweep", "gpu"), action="append")
    parser.add_argument(
        "--quick", action="store_true", help="a few rounds beside the batched design alone: no target is judged"
    )
    parser.add_argument("--json", action="store_true", help="print the result for a machine")
    return parser.parse_args()


def main() -> int:
    """Run the benchmark; return 1 when a target is missed."""
    given = arguments()
    turns = max(1, given.turns)
    parts = {
        "peers": lambda: beside_peers(turns, given.pfl),
        "growth": lambda: growth(turns),
        "memory": memory,
        "million": million,
        "sweep": sweep,
        "gpu": lambda: on_gpu(turns),
    }
    rows: dict[str, list[Line]] = {}
    verdicts: list[Verdict] = []
    for name, part in {"quick": quick}.items() if given.quick else parts.items():
        if given.only and name not in given.only and not given.quick:
            continue
        say(f"{name} ...")
        rows[name], judged = part()
        verdicts += judged
    if given.json:
        print(json.dumps({"results": rows, "verdicts": [vars(item) for item in verdicts]}, indent=1))
    else:
        for name, lines in rows.items():
            print(f"\n{name}")
            for line in lines:
                print("  " + ", ".join(f"{key} {_shown(value)}" for key, value in line.items()))
        print()
        print("\n".join(f"{'met   ' if item.met else 'MISSED'}  {item.text}" for item in verdicts))
    return 0 if all(item.met for item in verdicts) else 1


def _shown(value: object) -> str:
    return (
        f"{value:,.3g}"
        if isinstance(value, float) and abs(value) < 100
        else f"{value:,.0f}"
        if isinstance(value, float)
        else str(value)
    )


if __name__ == "__main__":
    sys.exit(main())

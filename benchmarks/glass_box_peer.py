"""The peer of `glass_box.py`: trains `interpret`'s differentially private explainable boosting machine (DP-EBM) on what it is given.

Run by the interpreter that has `interpret`, with the folder of the exchange as its one argument: `data.npz` holds `x` float64 [n, d] (codes
for categories, NaN for missing numbers) and `y` [n]; `jobs.json` what to train. Answers in `aucs.json`. Nothing is pickled.
"""

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np


def main() -> int:
    """Train every job; return 0."""
    from interpret.privacy import DPExplainableBoostingClassifier  # noqa: PLC0415 - only the peer's environment has it
    from sklearn.metrics import roc_auc_score  # noqa: PLC0415

    warnings.simplefilter("ignore")
    folder = Path(sys.argv[1])
    with np.load(folder / "data.npz", allow_pickle=False) as data:
        x, y = data["x"], data["y"].astype(np.int64)
        splits = {name: data[name] for name in data.files if name not in ("x", "y")}
    told: dict[str, Any] = json.loads((folder / "jobs.json").read_text())
    table = _table(x, told["categories"])
    types = ["continuous" if names is None else names for names in told["categories"]]
    bounds = {place: tuple(pair) for place, pair in enumerate(told["bounds"]) if pair is not None}
    aucs = []
    for job in told["jobs"]:
        held = splits[job["split"]]
        model = DPExplainableBoostingClassifier(
            feature_types=types,
            epsilon=job["epsilon"],
            delta=told["delta"],
            privacy_bounds=bounds,
            random_state=job["seed"],
            n_jobs=1,
            **job["settings"],
        )
        model.fit(table[~held], y[~held])
        aucs.append(float(roc_auc_score(y[held], model.predict_proba(table[held])[:, 1])))
    (folder / "aucs.json").write_text(json.dumps(aucs))
    return 0


def _table(x: np.ndarray[Any, Any], categories: list[list[str] | None]) -> np.ndarray[Any, Any]:
    """Return the columns as the peer reads them: numbers as they are, codes by their names, the last name for "unknown"."""
    table = np.empty(x.shape, dtype=object)
    for place, names in enumerate(categories):
        if names is None:
            table[:, place] = x[:, place]
        else:
            table[:, place] = np.array(names, dtype=object)[np.nan_to_num(x[:, place], nan=-1.0).astype(np.int64)]
    return table


if __name__ == "__main__":
    sys.exit(main())

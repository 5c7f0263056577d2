"""Which asker turns which query into measures, and what is wrong with a query before anything is asked."""

from collections.abc import Callable, Mapping
from typing import Any

from federation.contract import FeatureContract
from federation.measures import Cells, Term, column_of
from federation.measures import problems_of as measure_problems
from federation.queries import Base, Query
from server.statistics import (
    campaigns,
    clusters,
    correlations,
    counts,
    crosstabs,
    histograms,
    lifecycle,
    lifetime,
    means,
    quantiles,
    rfm,
    trees,
)
from server.statistics.asking import Asker, Setting

# Each asker takes its own class of query, which a table of all kinds cannot say: the key is the kind that only that class has.
_ASKERS: Mapping[str, Callable[[Any, Setting], Asker]] = {
    "count": counts.CountAsker,
    "sum": means.SumAsker,
    "mean": means.MeanAsker,
    "histogram": histograms.HistogramAsker,
    "quantiles": quantiles.QuantileAsker,
    "crosstab": crosstabs.CrosstabAsker,
    "correlation": correlations.CorrelationAsker,
    "rfm": rfm.RfmAsker,
    "lifetime": lifetime.LifetimeAsker,
    "lifecycle": lifecycle.LifecycleAsker,
    "clusters": clusters.ClustersAsker,
    "tree": trees.TreeAsker,
    "campaign": campaigns.CampaignAsker,
}
_CHECKS: Mapping[str, Callable[[Any, FeatureContract], list[str]]] = {
    "count": counts.check,
    "sum": means.check,
    "mean": means.check,
    "histogram": histograms.check,
    "quantiles": quantiles.check,
    "crosstab": crosstabs.check,
    "correlation": correlations.check,
    "rfm": rfm.check,
    "lifetime": lifetime.check,
    "lifecycle": lifecycle.check,
    "clusters": clusters.check,
    "tree": trees.check,
    "campaign": campaigns.check,
}


def make_asker(query: Query, setting: Setting) -> Asker:
    """Return the asker of a query, in which `problems_of` finds nothing."""
    return _ASKERS[query.kind](query, setting)


def problems_of(query: Query, contract: FeatureContract) -> list[str]:
    """Return all problems of a query, in words; empty when there are none."""
    found = _column_problems(query, contract)
    if not found:
        found = _CHECKS[query.kind](query, contract)
    return list(dict.fromkeys(found))


def _column_problems(query: Base, contract: FeatureContract) -> list[str]:
    """Return what is wrong with the columns and conditions, whatever the kind of query."""
    found = []
    for name, at in sorted(query.columns):
        try:
            column_of(name, contract)
        except ValueError as error:
            found.append(str(error))
            continue
        if at == "end" and (contract.source != "transactions" or name == contract.label.name):
            found.append(f"{name} has no value at the end: only features of a transaction contract have one")
    return found or measure_problems([Cells(where=query.where, terms=(Term(cap=1),))], contract)

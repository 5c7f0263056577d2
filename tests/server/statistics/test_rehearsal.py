"""What cannot be answered in a later round is noticed before the first: by the preview, and by the study once grants are known."""

import pytest

from federation.errors import FederationError
from server.events import GrantsReceived, RoundStarted
from server.statistics.planning import rehearse
from tests.client.statistics.town import draft as town_draft
from tests.server.statistics import test_run
from tests.server.statistics.test_planning import (
    CLUSTERS,
    CORRELATION,
    COUNT,
    GRANTED,
    MEAN,
    TREE,
    Schedule,
    draft,
    setting,
)

QUERIES = [COUNT | {"weight": 50.0}, COUNT | {"accuracy": {"within": 1e-3}}, TREE]


def test_every_round_is_looked_at_before_the_first():
    asked = draft(*QUERIES)
    plan = Schedule(asked, setting(asked))
    assert [turn.place for turn in plan.turns(1)] == [0, 2]
    plan.budgets(1, GRANTED)
    with pytest.raises(FederationError, match="CSL-S780"):
        rehearse(asked, setting(asked), GRANTED)


@pytest.mark.parametrize("query", [COUNT, MEAN, CORRELATION, TREE, CLUSTERS])
def test_a_query_with_too_little_to_ask_anything_says_so_under_its_code(query):
    asked = draft(query)
    rehearse(asked, setting(asked), GRANTED)
    with pytest.raises(FederationError, match=r"CSL-S7\d\d .*budget"):
        rehearse(asked, setting(asked), 0.5)


def test_what_can_be_asked_is_rehearsed_without_a_trace():
    asked = draft(COUNT, TREE)
    plan = Schedule(asked, setting(asked))
    before = plan.budgets(1, GRANTED)
    rehearse(asked, setting(asked), GRANTED)
    assert plan.budgets(1, GRANTED) == before


def test_a_study_that_cannot_answer_all_asks_for_no_sum(tmp_path, monkeypatch):
    play = test_run.Play(tmp_path, monkeypatch)
    queries = [
        {"id": "first", "kind": "count", "weight": 50.0},
        {"id": "second", "kind": "count", "accuracy": {"within": 1e-3}},
        {"id": "why", "kind": "tree", "of": ["age", "job"], "label": "bought", "depth": 1},
    ]
    with pytest.raises(FederationError, match="CSL-S780"):
        play.run(town_draft(min_partners=3, deadline_seconds=20.0, queries=queries))
    assert play.of(GrantsReceived) and not play.of(RoundStarted)

"""Drafts of both kinds are told apart by what stands in the file, and every mistake is named for the kind that was meant."""

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from federation.drafts import load_draft, load_statistics
from federation.errors import DocumentError
from federation.statistics import StatisticsDraft
from federation.study import StudyDraft
from tests.federation.query_drafts import EVERY_KIND, draft_tree, queries

CONFIGS = Path(__file__).parents[2] / "configs"
TRAINING = {
    "name": "spring",
    "title": "Who buys",
    "purpose": "marketing.propensity",
    "contract": "shoppers",
    "holdout": {"kind": "hash", "share": 0.2},
    "intended_use": "Order customers.",
    "limits": "None.",
}


def written(folder: Path, tree: object) -> Path:
    path = folder / "draft.yaml"
    path.write_text(yaml.dump(tree, Dumper=_NoAliases, allow_unicode=True))
    return path


class _NoAliases(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        return True


def test_files_in_the_repository_are_of_their_kind():
    studies, asked = sorted((CONFIGS / "studies").glob("*.yaml")), sorted((CONFIGS / "queries").glob("*.yaml"))
    assert studies and asked
    assert {type(load_draft(path)) for path in studies} == {StudyDraft}
    assert {type(load_draft(path)) for path in asked} == {StatisticsDraft}


def test_both_kinds_are_read(tmp_path):
    assert isinstance(load_draft(written(tmp_path, TRAINING)), StudyDraft)
    asked = load_draft(written(tmp_path, draft_tree(*EVERY_KIND)))
    assert asked == load_statistics(tmp_path / "draft.yaml")
    assert asked == StatisticsDraft.model_validate_json(json.dumps(draft_tree(*EVERY_KIND)))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(trees=st.lists(queries(), min_size=1, max_size=3))
def test_what_was_written_is_what_is_read(tmp_path, trees):
    tree = draft_tree(*trees)
    assert load_statistics(written(tmp_path, tree)) == StatisticsDraft.model_validate_json(json.dumps(tree))


def test_a_draft_of_training_is_no_statistics(tmp_path):
    with pytest.raises(DocumentError, match="CSL-F440") as caught:
        load_statistics(written(tmp_path, TRAINING))
    assert "study propose" in caught.value.action


@pytest.mark.parametrize("kind", [None, "statistic", "training", 7, ["statistics"]])
def test_queries_with_a_wrong_kind_are_read_as_statistics(tmp_path, kind):
    tree = draft_tree({"kind": "count"}, kind=kind)
    if kind is None:
        del tree["kind"]
    for load in (load_draft, load_statistics):
        with pytest.raises(DocumentError, match="CSL-F105") as caught:
            load(written(tmp_path, tree))
        assert "1 problem:" in caught.value.cause and ": kind: " in caught.value.cause


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"queries": None}, "queries"),
        ({"holdout": TRAINING["holdout"]}, "holdout: unknown key"),
        ({"title": ""}, "title"),
        ({"epsilon": "1"}, "epsilon"),
        ({"surprise": 1}, "surprise: unknown key"),
    ],
)
def test_mistakes_are_named_with_their_line(tmp_path, changes, words):
    with pytest.raises(DocumentError, match="CSL-F105") as caught:
        load_statistics(written(tmp_path, draft_tree({"kind": "count"}) | changes))
    assert words in caught.value.cause and "line " in caught.value.cause


@pytest.mark.parametrize("content", [b"", b"[1, 2]", b"text", b"\xff", b"{", b"kind: statistics\nkind: statistics\n"])
def test_what_is_no_draft_is_refused(tmp_path, content):
    path = tmp_path / "draft.yaml"
    path.write_bytes(content)
    with pytest.raises(DocumentError):
        load_draft(path)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DocumentError, match=r"CSL-F103.*absent\.yaml"):
        load_draft(tmp_path / "absent.yaml")

import errno
import json
import os
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from client.home import Home
from client.install import install
from client.officer import keys, policy
from client.policy_files import read_signatures, signatures_path
from client.policy_review import standing_of
from federation.charter import Charter, Declaration, Member, PinnedContract, seal
from federation.document import load_yaml
from federation.errors import ConsilienceError, ExitCode
from federation.signing import public_hex
from privacy.cost import TokenFilter
from privacy.explanation import studies_within
from privacy.filter import limits_of
from privacy.keys import create_identity, load_identity
from privacy.ledger import LedgerReader
from privacy.ledger.authority import check_authority
from privacy.ledger.state import State
from privacy.policy import Policy, SecureRule
from tests.client.vault_home import NODE

TODAY = datetime.now(UTC).date()
PASSPHRASE = b"a passphrase of several words"
DRAFT = """
name: lapse
title: Who lapses
purpose: marketing.churn
contract: shop
epsilon: {epsilon}
holdout: {{kind: hash, share: 0.2}}
intended_use: Tests
limits: None
"""


def application():
    app, group = typer.Typer(no_args_is_help=True), typer.Typer(no_args_is_help=True)
    policy.register(group)
    keys.register(app)
    app.add_typer(group, name="policy")
    return app


APP = application()


def run(*arguments, typed=None):
    result = CliRunner().invoke(APP, [str(argument) for argument in arguments], input=typed, env={"COLUMNS": "300"})
    if isinstance(result.exception, ConsilienceError):
        raise result.exception
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def refused(*arguments):
    with pytest.raises(ConsilienceError) as caught:
        run(*arguments)
    return caught.value


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """Officers' key files and passphrases, and a stranger's; made once, since sealing takes its time."""
    folder = tmp_path_factory.mktemp("officers")
    folder.chmod(0o700)
    passphrase = folder / "passphrase"
    passphrase.write_bytes(PASSPHRASE + b"\n")
    passphrase.chmod(0o600)
    found = SimpleNamespace(passphrase=passphrase, folder=folder)
    for name in ("chief", "deputy", "stranger"):
        run("init", folder / f"{name}.key", "--name", name, "--passphrase-file", passphrase)
        setattr(found, name, folder / f"{name}.key")
    return found


def flags(people, **changes):
    """The flags of a whole policy."""
    given = {
        "institution": "alder",
        "issued": str(TODAY),
        "expires": str(TODAY + timedelta(days=365)),
        "officer": [f"chief={people.chief}", f"deputy={people.deputy}"],
        "eyes": "2",
        "size": "2000",
        "purpose": ["id=marketing.churn,meaning=Keep customers, all of them,consent=profiling"],
        "contact-consent": "contact",
        "study": [
            "contract=shop,purposes=marketing.churn,models=additive,modes=fedsgd,epsilon=1.0,automatic=0.5,"
            "holdout=hash:0.2"
        ],
        "period-days": "30",
        "period-epsilon": "2.0",
        "life-epsilon": "3.0",
        "smallest-cohort": "500",
        "smallest-partners": "3",
        "reply-grid": "1.0",
        "keep-name-lists": "90",
        "keep-replies": "30",
        "keep-participation": "3650",
    }
    line = []
    for name, value in (given | changes).items():
        for item in value if isinstance(value, list) else [value]:
            line += [] if item is None else [f"--{name}", item]
    return line


def sign(file, people, name, *more, key=None):
    return run(
        "policy",
        "sign",
        file,
        "--key",
        key or getattr(people, name),
        "--passphrase-file",
        people.passphrase,
        "--yes",
        *more,
    )


@pytest.fixture
def file(tmp_path, people):
    path = tmp_path / "policy.yaml"
    run("policy", "new", path, *flags(people))
    return path


@pytest.fixture
def home(tmp_path):
    """A vault that was just made, with a charter; no policy is in force."""
    home = Home(tmp_path / "alder")
    install(home, "alder", allow_plain=True)
    key, coordinator = load_identity(home.identity_key, allow_plain=True), Ed25519PrivateKey.generate()
    member = Member(id="alder", title="Alder", key=public_hex(key), declares=(Declaration(contract="shop", size=1000),))
    charter = Charter(
        federation="test",
        version=1,
        coordinator_key=public_hex(coordinator),
        members=(member,),
        contracts=(PinnedContract(name="shop", sha256="0" * 64),),
    )
    home.charter_file.write_bytes(seal(charter, {"alder": key}, coordinator).canonical())
    home.pin_file.write_text(charter.digest() + "\n")
    home.node_file.write_text(NODE.format(member="alder"))
    return home


def in_force(home):
    with LedgerReader.read(home.ledger_file, _public(home)) as reader:
        return reader.state().policy


def _public(home):
    return public_hex(load_identity(home.identity_key, allow_plain=True))


def activated(file, home, people):
    for name in ("chief", "deputy"):
        sign(file, people, name)
    run("policy", "activate", file, "--home", home.root)
    return load_yaml(file, Policy)


def successor(file, people, tmp_path, name="next.yaml", **changes):
    path = tmp_path / name
    line = [part for key, value in changes.items() for part in (f"--{key.replace('_', '-')}", value)]
    run("policy", "new", path, "--from", file, *line)
    return path


# officer init


def test_an_officers_key_is_sealed_and_its_public_half_is_printed(people, tmp_path):
    path = tmp_path / "third.key"
    shown = json.loads(run("init", path, "--name", "third", "--passphrase-file", people.passphrase, "--json"))
    assert shown["id"] == "third" and path.stat().st_mode & 0o777 == 0o600
    assert public_hex(load_identity(path, use="officer", passphrase=PASSPHRASE)) == shown["key"]
    again = refused("init", path, "--name", "third", "--passphrase-file", people.passphrase)
    assert (again.code, again.exit_code) == ("CSL-P501", ExitCode.STORAGE)
    assert (
        refused("init", tmp_path / "x.key", "--name", "Cleo!", "--passphrase-file", people.passphrase).code
        == "CSL-C635"
    )
    assert refused("init", tmp_path / "x.key", "--name", "third").code == "CSL-C632"
    both = ("--passphrase-file", people.passphrase, "--passphrase-fd", "9")
    assert refused("init", tmp_path / "x.key", "--name", "third", *both).code == "CSL-C632"
    assert not (tmp_path / "x.key").exists()


def test_a_passphrase_may_come_from_a_descriptor(tmp_path):
    reading, writing = os.pipe()
    os.write(writing, PASSPHRASE)
    os.close(writing)
    run("init", tmp_path / "third.key", "--name", "third", "--passphrase-fd", reading)
    assert load_identity(tmp_path / "third.key", use="officer", passphrase=PASSPHRASE)


# new


def test_flags_make_a_policy_that_reads_back(file, people):
    made = load_yaml(file, Policy)
    assert (made.version, made.prev, made.institution) == (1, None, "alder")
    assert made.budget.period.delta == made.budget.life.delta == made.studies[0].max_delta == 5e-6
    assert made.studies[0].max_delta * 100 * 2000 <= 1
    assert made.purposes[0].meaning == "Keep customers, all of them"
    assert [officer.id for officer in made.officers] == ["chief", "deputy"]
    assert file.read_text().count("\n# ") > 10


def test_everything_that_is_missing_is_named_at_once(tmp_path, people):
    error = refused("policy", "new", tmp_path / "p.yaml")
    assert (error.code, error.exit_code) == ("CSL-C621", ExitCode.DOCUMENT)
    for name in ("institution", "expires", "officer", "purpose", "study", "size", "period-epsilon", "keep-replies"):
        assert f"--{name}" in error.cause
    assert "--order" not in error.cause and "--slot" not in error.cause
    error = refused("policy", "new", tmp_path / "p.yaml", *flags(people, mode="plan", filter="rdp", size=None))
    assert error.cause.endswith("missing: --order, --slot, --size.")
    assert not (tmp_path / "p.yaml").exists()


def test_a_file_that_exists_is_kept_unless_forced(file, people):
    before = file.read_bytes()
    error = refused("policy", "new", file, *flags(people, eyes="1"))
    assert (error.code, error.exit_code) == ("CSL-C622", ExitCode.STORAGE) and file.read_bytes() == before
    run("policy", "new", file, "--force", *flags(people, eyes="1"))
    assert load_yaml(file, Policy).approval.eyes == 1


def test_an_answer_of_the_wrong_form_is_refused_in_words_not_by_a_pattern(tmp_path, people):
    study = "contract=shop,purposes=marketing.churn,epsilon=1,holdout=0.2"
    error = refused("policy", "new", tmp_path / "p.yaml", *flags(people, study=[study]))
    assert error.code == "CSL-C623" and "such as hash:0.2 or position:36168" in error.cause and "^" not in error.cause


@pytest.mark.parametrize("value", ["0", "-1", "inf", "nan", "101", "much"])
@pytest.mark.parametrize("name", ["period-epsilon", "life-epsilon"])
def test_an_epsilon_that_promises_nothing_is_refused(tmp_path, people, name, value):
    error = refused("policy", "new", tmp_path / "p.yaml", *flags(people, **{name: value}))
    assert (error.code, error.exit_code) == ("CSL-C623", ExitCode.DOCUMENT) and f"--{name}" in error.cause


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("period-delta", "1"),
        ("period-delta", "0"),
        ("life-delta", "nan"),
        ("size", "0"),
        ("size", "2000000"),
        ("eyes", "3"),
        ("mode", "closed"),
        ("aggregation", "closed"),
        ("secure-noise", "loud"),
        ("secure-n-min", "2"),
        ("secure-c", "-1"),
        ("secure-floor", "inf"),
        ("expires", "tomorrow"),
        ("officer", ["chief"]),
        ("officer", ["id=chief,key="]),
        ("purpose", ["id=Marketing,meaning=x,consent=profiling"]),
        ("purpose", ["id=marketing.churn,consent=profiling"]),
        ("study", ["contract=shop,purposes=marketing.churn,epsilon=inf"]),
        ("study", ["contract=shop,purposes=marketing.churn,epsilon=1.0,holdout=half"]),
        ("study", ["contract=shop,purposes=marketing.churn,epsilon=1.0,epsilon=2.0"]),
        ("study", ["contract=shop,purposes=marketing.churn,colour=red"]),
    ],
)
def test_a_flag_that_does_not_fit_is_named(tmp_path, people, name, value):
    error = refused("policy", "new", tmp_path / "p.yaml", *flags(people, **{name: value}))
    assert (error.code, error.exit_code) == ("CSL-C623", ExitCode.DOCUMENT) and f"--{name}" in error.cause


def test_sums_in_secret_are_asked_for_by_flags(tmp_path, people):
    file = tmp_path / "p.yaml"
    terms = {"aggregation": "secure", "secure-noise": "local+shared", "secure-c": "1", "secure-n-min": "5"}
    output = run("policy", "new", file, *flags(people, **terms, **{"secure-floor": "3.0"}))
    made = load_yaml(file, Policy)
    assert made.aggregation == "secure"
    assert made.secure == SecureRule(n_min=5, c=1, noise=("local", "shared"), local_noise_floor=3.0)
    assert "shared noise without" not in output and "# work together with the coordinator" in file.read_text()
    output = run("policy", "new", file, "--force", *flags(people, **terms))
    assert load_yaml(file, Policy).secure.local_noise_floor is None and "shared noise without" in output
    following = tmp_path / "next.yaml"
    run("policy", "new", following, "--from", file, "--secure-noise", "local")
    assert load_yaml(following, Policy).secure == SecureRule(n_min=5, c=1, noise=("local",))
    run("policy", "new", following, "--force", "--from", file, "--aggregation", "plain", "--secure-noise", "none")
    assert load_yaml(following, Policy).secure is None


def test_terms_of_sums_in_secret_that_are_missing_or_idle_are_named(tmp_path, people):
    error = refused("policy", "new", tmp_path / "p.yaml", *flags(people, aggregation="secure"))
    assert error.code == "CSL-C621" and "--secure-noise, --secure-c, --secure-n-min" in error.cause
    error = refused("policy", "new", tmp_path / "p.yaml", *flags(people, **{"secure-noise": "local"}))
    assert error.code == "CSL-C621" and "--secure-c, --secure-n-min" in error.cause
    error = refused("policy", "new", tmp_path / "p.yaml", *flags(people, **{"secure-n-min": "5"}))
    assert error.code == "CSL-C623" and "--secure-noise allows none" in error.cause
    line = flags(people, **{"secure-noise": "local", "secure-c": "3", "secure-n-min": "5"})
    error = refused("policy", "new", tmp_path / "p.yaml", *line)
    assert error.code == "CSL-C633" and "n_min must be at least c + 3 = 6" in error.cause
    error = refused("policy", "new", tmp_path / "p.yaml", *flags(people, **{"secure-noise": "none+local"}))
    assert error.code in ("CSL-C621", "CSL-C633")


def test_check_says_what_becomes_of_studies_that_are_added_up_in_secret():
    configs = Path(__file__).parents[2] / "configs"
    drafts = [configs / "studies" / f"{name}.yaml" for name in ("propensity", "propensity-plain")]
    output = run("policy", "check", configs / "policies" / "secure.yaml", "--study", drafts[0], "--study", drafts[1])
    assert "Study propensity: waits" in output and "Study propensity_plain: refused. CSL-P213" in output
    output = run("policy", "check", configs / "policies" / "example.yaml", "--study", drafts[0])
    assert "Study propensity: refused" in output
    output = run("policy", "diff", configs / "policies" / "example.yaml", configs / "policies" / "secure.yaml")
    assert "Sums in secret are allowed by a new rule" in output and "Plain studies are refused from now on" in output


def test_answers_that_contradict_each_other_are_all_named(tmp_path, people):
    line = flags(people, **{"period-epsilon": "4.0", "officer": [f"chief={people.chief}"]})
    error = refused("policy", "new", tmp_path / "p.yaml", *line)
    assert (error.code, error.exit_code) == ("CSL-C633", ExitCode.DOCUMENT) and "above the life's" in error.cause
    error = refused("policy", "new", tmp_path / "p.yaml", *flags(people, officer=[f"chief={people.chief}"]))
    assert "approval asks for 2 officers" in error.cause


def test_a_key_file_that_is_none_is_refused(tmp_path, people):
    assert (
        refused("policy", "new", tmp_path / "p.yaml", *flags(people, officer=["chief=nowhere.key"])).code == "CSL-P502"
    )
    line = flags(people, officer=[f"chief={people.passphrase}"])
    assert refused("policy", "new", tmp_path / "p.yaml", *line).code == "CSL-P506"


def test_a_folder_that_cannot_be_written_is_named(tmp_path, people):
    error = refused("policy", "new", tmp_path / "nowhere" / "p.yaml", *flags(people))
    assert (error.code, error.exit_code) == ("CSL-F301", ExitCode.STORAGE)


@pytest.fixture
def read_only(monkeypatch):
    """Let every file that is to be written lie on a file system that is mounted read-only."""

    def closed(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    return lambda: monkeypatch.setattr("federation.files.tempfile.mkstemp", closed)


def test_a_read_only_folder_is_named(tmp_path, people, read_only):
    read_only()
    error = refused("policy", "new", tmp_path / "p.yaml", *flags(people))
    assert (error.code, error.exit_code) == ("CSL-F301", ExitCode.STORAGE) and "Read-only" in error.cause


def test_what_the_disk_garbled_is_found(tmp_path, people, monkeypatch):
    def garbled(path, content):
        path.write_bytes(content.replace(b"smallest_cohort: 500", b"smallest_cohort: 501"))

    monkeypatch.setattr(policy, "atomic_write", garbled)
    error = refused("policy", "new", tmp_path / "p.yaml", *flags(people))
    assert (error.code, error.exit_code) == ("CSL-C634", ExitCode.STORAGE)


@pytest.fixture
def somebody(monkeypatch):
    monkeypatch.setattr(policy, "_somebody_is_there", lambda: True)


def test_at_a_terminal_only_what_is_missing_is_asked(tmp_path, people, somebody):
    path = tmp_path / "p.yaml"
    line = flags(people, **{"period-epsilon": None, "eyes": None, "officer": None})
    typed = f"chief\n{people.chief}\ny\nchief\ndeputy\n{people.deputy}\nn\n1\n\n\n0\n1.5\n\n\n\n\n\n"
    output = run("policy", "new", path, *line, typed=typed)
    made = load_yaml(path, Policy)
    assert [officer.id for officer in made.officers] == ["chief", "deputy"] and made.approval.eyes == 1
    assert made.budget.period.epsilon == 1.5 and made.budget.life.epsilon == 3.0
    assert output.count("Again, please.") == 2 and "institution's identifier" not in output


def test_at_a_terminal_an_officer_is_asked_before_she_signs(file, people, somebody):
    line = ("policy", "sign", file, "--key", people.chief, "--passphrase-file", people.passphrase)
    result = CliRunner().invoke(APP, [str(part) for part in line], input="n\n")
    assert result.exit_code == 1 and not signatures_path(file).exists()
    assert load_yaml(file, Policy).digest() in result.output.replace("\n", "")
    assert "Signed by chief" in run(*line, typed="y\n")


def test_the_successor_names_the_one_before_and_moves_the_dates_on(file, people, tmp_path):
    before = load_yaml(file, Policy)
    after = load_yaml(successor(file, people, tmp_path, smallest_cohort="600"), Policy)
    assert (after.version, after.prev, after.smallest_cohort) == (2, before.digest(), 600)
    assert after.issued == TODAY and after.expires - after.issued == before.expires - before.issued
    same = {"version": 1, "prev": None, "smallest_cohort": 500}
    assert after.model_copy(update=same) == before
    smaller = load_yaml(successor(file, people, tmp_path, "size.yaml", size="4000"), Policy)
    assert smaller.budget.life == before.budget.life
    assert smaller.budget.period.delta == smaller.studies[0].max_delta == 2.5e-6


COUNTS = "contract=shop,purposes=marketing.churn,epsilon=0.5,automatic=0.2"
QUESTIONS = """
kind: statistics
name: ages
title: How old customers are
purpose: marketing.churn
contract: shop
epsilon: {epsilon}
queries:
  - {{id: all_of_them, kind: count}}
"""


def test_a_rule_for_statistics_is_written_kept_and_taken_back(tmp_path, people):
    path, text = tmp_path / "p.yaml", ""
    output = run("policy", "new", path, *flags(people, statistics=[COUNTS]))
    (rule,), text = load_yaml(path, Policy).statistics, path.read_text()
    assert (rule.contract, rule.max_epsilon, rule.automatic_epsilon, rule.max_delta) == ("shop", 0.5, 0.2, 5e-6)
    assert "so that both accounts pay" in text and output.count("Warning") == 1
    later, none = tmp_path / "later.yaml", tmp_path / "none.yaml"
    run("policy", "new", later, "--from", path)
    assert load_yaml(later, Policy).statistics == (rule,)
    run("policy", "new", none, "--from", path, "--statistics", "none")
    assert load_yaml(none, Policy).statistics == ()
    output = run("policy", "diff", path, none)
    assert "- The rule for statistics on shop is gone." in output and "One officer's signature is enough" in output
    output = run("policy", "diff", none, path)
    assert "+ The rule for statistics on shop is new. !!" in output and "Two distinct officers must sign it" in output


def test_a_rule_for_statistics_that_does_not_fit_is_refused(tmp_path, people):
    path = tmp_path / "p.yaml"
    error = refused("policy", "new", path, *flags(people, statistics=["contract=shop,epsilon=1.0"]))
    assert error.code == "CSL-C623" and "--statistics: purposes is missing" in error.cause and not path.exists()
    error = refused("policy", "new", path, "--force", *flags(people, mode="plan", slot=SLOTS, statistics=[COUNTS]))
    assert error.code == "CSL-C633" and "statistics need an open budget" in error.cause
    error = refused("policy", "new", path, "--force", *flags(people, statistics=[COUNTS, "none"]))
    assert error.code == "CSL-C623"


def test_check_says_what_becomes_of_drafted_statistics(tmp_path, people):
    path, small, large = (tmp_path / f"{name}.yaml" for name in ("p", "small", "large"))
    run("policy", "new", path, *flags(people, statistics=[COUNTS]))
    small.write_text(QUESTIONS.format(epsilon=0.2))
    large.write_text(QUESTIONS.format(epsilon=0.3))
    output = run("policy", "check", path, "--study", small, "--study", large)
    assert "Statistics on shop, for marketing.churn: counts and sums with noise" in output
    bound = limits_of(load_yaml(path, Policy)).period
    many = int(studies_within(bound, 0.5, 5e-6, TokenFilter()))
    assert many > 5 and f"about {many} statistics studies on shop fit into 30 days" in output
    assert output.count("Study ages: allowed. It would get epsilon 0.2 at once") == 1
    assert output.count("Study ages: waits. It asks for epsilon 0.3") == 1
    run("policy", "new", path, "--force", *flags(people))
    output = run("policy", "check", path, "--study", small)
    assert "Study ages: refused. CSL-P202: The policy allows no statistics" in output
    assert "Refused: statistics of every kind" in output


SLOTS = [
    "id=spring,purpose=marketing.churn,contract=shop,epsilon=1.0,rate=0.5,steps=10",
    "id=autumn,purpose=marketing.churn,contract=shop,rate=0.5,steps=10,noise=20.0,histogram=30.0",
]


def test_a_plans_noise_is_computed_and_its_epsilon_shown(tmp_path, people):
    path = tmp_path / "p.yaml"
    output = run("policy", "new", path, *flags(people, mode="plan", slot=SLOTS))
    first, second = load_yaml(path, Policy).budget.slots
    assert first.noise_multiplier > 1 and first.histogram_sigma > 1
    assert (second.noise_multiplier, second.histogram_sigma) == (20.0, 30.0)
    assert "The whole plan together: epsilon" in output and "more than the budget" not in output
    output = run(
        "policy",
        "new",
        path,
        "--force",
        *flags(
            people,
            mode="plan",
            slot=[*SLOTS, *(SLOTS[0].replace("spring", name) for name in ("may", "june", "july", "fall"))],
        ),
    )
    assert "more than the budget for 30 days" in output
    open_again = load_yaml(successor(path, people, tmp_path, mode="open"), Policy)
    assert open_again.budget.slots == ()
    kept = load_yaml(successor(path, people, tmp_path, "kept.yaml"), Policy)
    assert kept.budget.slots == load_yaml(path, Policy).budget.slots


@pytest.mark.parametrize(
    "slot",
    [
        "id=spring,purpose=marketing.churn,contract=shop,rate=0.5,steps=10",
        "id=spring,purpose=marketing.churn,contract=bank,epsilon=1.0,rate=0.5,steps=10",
        "id=spring,purpose=marketing.churn,contract=shop,epsilon=1.0,rate=2.0,steps=10",
    ],
)
def test_a_slot_without_noise_or_rule_is_refused(tmp_path, people, slot):
    assert refused("policy", "new", tmp_path / "p.yaml", *flags(people, mode="plan", slot=[slot])).code == "CSL-C623"


# check


def test_check_explains_and_warns(file, tmp_path):
    output = run("policy", "check", file)
    assert "marketing.churn: Keep customers" in output and "two distinct officers' approval" in output
    assert "Warning: the period's budget comes back every 30 days" in output
    shown = json.loads(run("policy", "check", file, "--json"))
    assert shown["policy"] == load_yaml(file, Policy).digest() and shown["valid"] and len(shown["warnings"]) == 1


@pytest.mark.parametrize(
    ("epsilon", "verdict", "words"),
    [(0.5, "allowed", "at once"), (0.6, "waits", "two distinct officers"), (1.5, "refused", "at most 1")],
)
def test_check_says_what_becomes_of_a_draft(file, tmp_path, home, epsilon, verdict, words):
    draft = tmp_path / "draft.yaml"
    draft.write_text(DRAFT.format(epsilon=epsilon))
    output = run("policy", "check", file, "--study", draft)
    assert f"Study lapse: {verdict}." in output and words in output
    assert ("give --home" in output) == (verdict != "refused")
    shown = json.loads(run("policy", "check", file, "--study", draft, "--home", home.root, "--json"))
    assert shown["studies"][0]["verdict"] == "refused" and shown["studies"][0]["code"] == (
        "CSL-P204" if verdict == "refused" else "CSL-P207"
    )


def test_check_says_whose_signatures_are_missing(file, home, people):
    output = run("policy", "check", file, "--home", home.root)
    assert "two distinct officers signed" in output and "Who can still sign: chief, deputy." in output
    sign(file, people, "deputy")
    standing = json.loads(run("policy", "check", file, "--home", home.root, "--json"))["standing"]
    assert (standing["needed"], standing["signed"], standing["may_sign"]) == (2, ["deputy"], ["chief"])
    activated_policy = sign(file, people, "chief", "--home", home.root)
    assert "That is enough" in activated_policy
    run("policy", "activate", file, "--home", home.root)
    assert "This policy is in force." in run("policy", "check", file, "--home", home.root)


def test_check_says_what_stands_in_the_way(file, home, people, tmp_path):
    activated(file, home, people)
    path = successor(file, people, tmp_path, life_epsilon="4.0")
    assert "cannot come into force: The life budget is fixed" in run("policy", "check", path, "--home", home.root)
    path = successor(file, people, tmp_path, "more.yaml", period_epsilon="2.5")
    output = run("policy", "check", path, "--home", home.root)
    assert "Two must sign because: The epsilon of the period's budget rises from 2 to 2.5." in output
    path = successor(file, people, tmp_path, "less.yaml", period_epsilon="1.5")
    assert "one officer signed" in run("policy", "check", path, "--home", home.root)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("epsilon: 2.0", "epsilon: 0", "greater than 0"),
        ("epsilon: 2.0", "epsilon: -1.0", "greater than 0"),
        ("epsilon: 2.0", "epsilon: .inf", "must be finite"),
        ("epsilon: 2.0", "epsilon: .nan", "must be finite"),
        ("epsilon: 2.0", "epsilon: &a 2.0, more: *a", "anchors and aliases"),
        ("epsilon: 2.0", "epsilon: 2.0, epsilon: 1.0", "stands twice"),
        ("epsilon: 2.0, delta: 5.0e-6", "epsilon: 2.0, delta: 1.0", "less than or equal to 0.01"),
        ("version: 1\n", "version: 1\nversion: 1\n", "stands twice"),
    ],
)
def test_a_policy_that_is_not_plain_or_not_finite_is_refused(file, old, new, words):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    error = refused("policy", "check", file)
    assert (error.code, error.exit_code) == ("CSL-F105", ExitCode.DOCUMENT) and words in error.cause


# sign


def test_two_officers_sign_and_nobody_twice(file, people):
    sign(file, people, "chief")
    with pytest.raises(ConsilienceError) as caught:
        sign(file, people, "chief")
    assert (caught.value.code, caught.value.exit_code) == ("CSL-C626", ExitCode.POLICY)
    assert "second, distinct officer" in caught.value.action
    sign(file, people, "deputy")
    made = load_yaml(file, Policy)
    signatures = read_signatures(file, made)
    assert [made.officer(signature.key).id for signature in signatures] == ["chief", "deputy"]


def test_a_key_of_nobody_in_the_policy_is_refused(file, people):
    with pytest.raises(ConsilienceError) as caught:
        sign(file, people, "stranger")
    assert (caught.value.code, caught.value.exit_code) == ("CSL-C625", ExitCode.INTEGRITY)
    assert not signatures_path(file).exists()


def test_a_wrong_passphrase_and_a_wrong_key_are_refused(file, people, tmp_path):
    wrong = tmp_path / "wrong"
    wrong.write_text("another passphrase of words")
    wrong.chmod(0o600)
    error = refused("policy", "sign", file, "--key", people.chief, "--passphrase-file", wrong, "--yes")
    assert (error.code, error.exit_code) == ("CSL-P507", ExitCode.INTEGRITY)
    create_identity(tmp_path / "identity.key", passphrase=PASSPHRASE)
    error = refused(
        "policy", "sign", file, "--key", tmp_path / "identity.key", "--passphrase-file", people.passphrase, "--yes"
    )
    assert error.code == "CSL-C625"
    assert refused("policy", "sign", file, "--key", people.chief, "--yes").code == "CSL-C632"
    wrong.chmod(0o644)
    assert (
        refused("policy", "sign", file, "--key", people.chief, "--passphrase-file", wrong, "--yes").code == "CSL-P505"
    )


def test_a_policy_that_was_edited_after_signing_is_found(file, people):
    sign(file, people, "chief")
    signed = load_yaml(file, Policy).digest()
    file.write_text(file.read_text().replace("smallest_cohort: 500", "smallest_cohort: 400"))
    with pytest.raises(ConsilienceError) as caught:
        sign(file, people, "deputy")
    assert (caught.value.code, caught.value.exit_code) == ("CSL-C624", ExitCode.INTEGRITY)
    assert signed in caught.value.cause and load_yaml(file, Policy).digest() in caught.value.cause
    assert refused("policy", "check", file).code == "CSL-C624"


def test_comments_may_change_after_signing(file, people):
    sign(file, people, "chief")
    file.write_text("# A note\n" + file.read_text())
    sign(file, people, "deputy")


def test_a_forged_signature_is_found_before_the_next_is_added(file, people):
    sign(file, people, "chief")
    path = signatures_path(file)
    content = json.loads(path.read_bytes())
    content["signatures"][0]["value"] = "0" * 128
    path.write_text(json.dumps(content, separators=(",", ":"), sort_keys=True))
    with pytest.raises(ConsilienceError) as caught:
        sign(file, people, "deputy")
    assert (caught.value.code, caught.value.exit_code) == ("CSL-F202", ExitCode.INTEGRITY)
    path.write_text("signed, really")
    with pytest.raises(ConsilienceError) as caught:
        sign(file, people, "deputy")
    assert (caught.value.code, caught.value.exit_code) == ("CSL-C629", ExitCode.DOCUMENT)


def test_no_garbled_signatures_count(file, people):
    """Whatever byte of the signatures' file changes, it is refused or nobody signed."""
    sign(file, people, "chief")
    made, path = load_yaml(file, Policy), signatures_path(file)
    content = path.read_bytes()
    generator = random.Random(7)
    for _ in range(300):
        place, value = generator.randrange(len(content)), generator.randrange(256)
        if content[place] == value:
            continue
        path.write_bytes(content[:place] + bytes([value]) + content[place + 1 :])
        try:
            signatures = read_signatures(file, made)
        except ConsilienceError as error:
            assert error.code in ("CSL-C624", "CSL-C629")
            continue
        assert standing_of(State(member="alder"), made, signatures).signed == ()
        with pytest.raises(ConsilienceError):
            check_authority(None, made, signatures)


def test_an_expired_policy_is_neither_signed_nor_activated(people, tmp_path, home):
    path = tmp_path / "old.yaml"
    dates = {"issued": "2020-01-01", "expires": "2021-01-01"}
    assert "it expired on 2021-01-01" in run("policy", "new", path, *flags(people, **dates))
    with pytest.raises(ConsilienceError) as caught:
        sign(path, people, "chief")
    assert (caught.value.code, caught.value.exit_code) == ("CSL-C627", ExitCode.POLICY)
    assert refused("policy", "activate", path, "--home", home.root).code == "CSL-C627"


def test_nobody_signs_without_being_asked(file, people):
    error = refused("policy", "sign", file, "--key", people.chief, "--passphrase-file", people.passphrase)
    assert (error.code, error.exit_code) == ("CSL-C630", ExitCode.DOCUMENT)
    assert not signatures_path(file).exists()


def test_signing_for_a_home_goes_by_the_officers_in_force(file, home, people, tmp_path):
    activated(file, home, people)
    path = successor(file, people, tmp_path, officer=f"stranger={people.stranger}", eyes="1")
    with pytest.raises(ConsilienceError) as caught:
        sign(path, people, "stranger", "--home", home.root)
    assert caught.value.code == "CSL-C625" and "chief, deputy" in caught.value.cause
    output = sign(path, people, "chief", "--home", home.root)
    assert "Two must sign because" in output and "Who can still sign: deputy" in output
    sideways = successor(path, people, tmp_path, "sideways.yaml")
    with pytest.raises(ConsilienceError) as caught:
        sign(sideways, people, "chief", "--home", home.root)
    assert caught.value.code == "CSL-P309"


def test_the_policy_in_force_may_be_named_by_its_file(file, people, tmp_path):
    path = successor(file, people, tmp_path, officer=f"stranger={people.stranger}", eyes="1")
    with pytest.raises(ConsilienceError) as caught:
        sign(path, people, "chief")
    assert caught.value.code == "CSL-C625"
    assert "- Officer chief is gone" in sign(path, people, "chief", "--before", file).replace("~", "-")
    other = tmp_path / "other.yaml"
    run("policy", "new", other, *flags(people, eyes="1"))
    for old, code in ((other, "CSL-P309"), (path, "CSL-P302")):
        with pytest.raises(ConsilienceError) as caught:
            sign(path, people, "deputy", "--before", old)
        assert caught.value.code == code
    with pytest.raises(ConsilienceError) as caught:
        sign(path, people, "deputy", "--before", file, "--home", tmp_path)
    assert caught.value.code == "CSL-C637"


# activate and show


def test_a_policy_comes_into_force_once_enough_signed(file, home, people):
    error = refused("policy", "activate", file, "--home", home.root)
    assert (error.code, error.exit_code) == ("CSL-C631", ExitCode.POLICY)
    sign(file, people, "chief")
    error = refused("policy", "activate", file, "--home", home.root)
    assert (error.code, error.exit_code) == ("CSL-P307", ExitCode.POLICY) and in_force(home) is None
    assert refused("policy", "show", "--home", home.root).code == "CSL-C636"
    sign(file, people, "deputy")
    assert "is in force" in run("policy", "activate", file, "--home", home.root)
    made = load_yaml(file, Policy)
    assert in_force(home) == made
    assert home.policy_file.read_bytes() == file.read_bytes()
    assert len(read_signatures(home.policy_file, made)) == 2
    assert home.policy_file.stat().st_mode & 0o777 == 0o600
    shown = run("policy", "show", "--home", home.root)
    assert made.digest() in shown and "smallest_cohort: 500" in shown
    assert json.loads(run("policy", "show", "--home", home.root, "--json"))["digest"] == made.digest()


def test_activating_again_mends_the_files_and_changes_nothing_else(file, home, people):
    activated(file, home, people)
    signatures_path(home.policy_file).unlink()
    home.policy_file.unlink()
    assert json.loads(run("policy", "activate", file, "--home", home.root, "--json"))["already"]
    assert home.policy_file.read_bytes() == file.read_bytes()
    run("policy", "activate", home.policy_file, "--home", home.root)
    assert len(read_signatures(home.policy_file, load_yaml(file, Policy))) == 2


def test_a_larger_budget_needs_two_and_a_smaller_one_officer(file, home, people, tmp_path):
    activated(file, home, people)
    more = successor(file, people, tmp_path, "more.yaml", period_epsilon="2.5")
    sign(more, people, "chief")
    error = refused("policy", "activate", more, "--home", home.root)
    assert error.code == "CSL-P307" and "rises from 2 to 2.5" in error.cause
    less = successor(file, people, tmp_path, "less.yaml", period_epsilon="1.5")
    sign(less, people, "deputy")
    run("policy", "activate", less, "--home", home.root)
    assert in_force(home).budget.period.epsilon == 1.5
    sign(more, people, "deputy")
    assert refused("policy", "activate", more, "--home", home.root).code in ("CSL-P302", "CSL-P309")


def test_a_home_that_became_read_only_is_mended_later(file, home, people, read_only, monkeypatch):
    for name in ("chief", "deputy"):
        sign(file, people, name)
    read_only()
    error = refused("policy", "activate", file, "--home", home.root)
    assert (error.code, error.exit_code) == ("CSL-F301", ExitCode.STORAGE) and not home.policy_file.exists()
    monkeypatch.undo()
    assert in_force(home) == load_yaml(file, Policy)
    assert "was in force already" in run("policy", "activate", file, "--home", home.root)
    assert home.policy_file.read_bytes() == file.read_bytes()


def test_only_officers_activate(file, home, people):
    home.roles_file.write_text("operators: [somebody_else]\n")
    home.roles_file.chmod(0o600)
    for command in (("activate", file), ("show",), ("check", file)):
        error = refused("policy", *command, "--home", home.root)
        assert (error.code, error.exit_code) == ("CSL-C542", ExitCode.POLICY)


def test_a_folder_that_is_no_home_is_named(file, tmp_path):
    for command in (("activate", file), ("show",), ("check", file)):
        assert refused("policy", *command, "--home", tmp_path).code == "CSL-C005"


# diff


def test_diff_says_what_changes_and_who_must_sign(file, people, tmp_path):
    path = successor(file, people, tmp_path, period_epsilon="2.5", smallest_cohort="600")
    output = run("policy", "diff", file, path)
    assert "+ The epsilon of the period's budget rises from 2 to 2.5. !!" in output
    assert "- The smallest cohort rises from 500 to 600." in output and "Two distinct officers must sign" in output
    shown = json.loads(run("policy", "diff", file, path, "--json"))
    assert {item["effect"] for item in shown} == {"more", "less", "other"}
    assert "say the same" in run("policy", "diff", file, file)
    calm = successor(file, people, tmp_path, "calm.yaml")
    assert "One officer's signature is enough" in run("policy", "diff", file, calm)


def test_diff_says_what_no_signature_can_change(file, people, tmp_path):
    other = tmp_path / "other.yaml"
    made = load_yaml(file, Policy).budget.life
    other.write_text(
        file.read_text().replace(f"life: {{epsilon: {made.epsilon}", f"life: {{epsilon: {made.epsilon + 1}")
    )
    output = run("policy", "diff", file, other)
    assert "which is fixed for good, rises" in output and " XX" in output
    assert "It can never follow" in output and "must sign it" not in output


def test_help_names_every_flag():
    output = run("policy", "new", "--help")
    for name in ("--smallest-cohort", "--slot", "--from", "--order", "--keep-participation"):
        assert name in output

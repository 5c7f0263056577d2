"""What a bank knows of its customers: columns of the contract `population_bank`, and the logits of what they will do.

Shares by age and schooling are those of UCI bank-full, rounded; `facts` compares what comes of them. The weights of traits are choices.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from simulations.population.chance import Codes, at_rate, choose, forget, happens
from simulations.population.traits import Floats, Traits, age_of, blend, standing

CHANNELS = ("branch", "web", "app")
MARITAL = ("divorced", "married", "single")
SCHOOLING = ("primary", "secondary", "tertiary")
EARLIER = ("failure", "other", "success")
JOBS = (
    "admin.",
    "blue-collar",
    "entrepreneur",
    "housemaid",
    "management",
    "self-employed",
    "services",
    "technician",
    "unemployed",
    "retired",
    "student",
)
SHARE_HOUSING, SHARE_LOAN, SHARE_DEFAULT, SHARE_CARD, SHARE_DEPOSIT = 0.556, 0.160, 0.018, 0.70, 0.22
SHARE_CONTACTED_EARLIER = 0.183

_AGES = np.array([18.0, 22.0, 27.0, 32.0, 37.0, 44.0, 54.0, 62.0, 72.0])
_SINGLE = np.array([0.99, 0.90, 0.69, 0.45, 0.28, 0.14, 0.065, 0.035, 0.03])
_DIVORCED = np.array([0.0, 0.005, 0.022, 0.062, 0.107, 0.15, 0.185, 0.15, 0.195])
_STUDENT = np.array([0.80, 0.42, 0.087, 0.016, 0.006, 0.001, 0.0, 0.0, 0.0])
_RETIRED = np.array([0.0, 0.0, 0.0, 0.001, 0.002, 0.008, 0.085, 0.40, 0.84])
_HOUSING = np.array([0.48, 0.51, 0.59, 0.63, 0.63, 0.58, 0.46, 0.24, 0.04])
_LOAN = np.array([0.05, 0.11, 0.18, 0.156, 0.152, 0.169, 0.178, 0.10, 0.01])
_SCHOOLING_AT = ndtri(np.array([0.158, 0.693]))
# By schooling, the shares of the first nine of JOBS among those who are neither students nor retired.
_JOBS_AT = np.cumsum(
    [
        [0.035, 0.630, 0.031, 0.105, 0.049, 0.022, 0.058, 0.027, 0.043],
        [0.195, 0.248, 0.025, 0.018, 0.052, 0.027, 0.160, 0.242, 0.033],
        [0.045, 0.012, 0.054, 0.014, 0.616, 0.066, 0.016, 0.155, 0.022],
    ],
    axis=1,
)
# The balance's quantile function: its public quantiles, joined on the scale of asinh(balance / 200).
_BALANCE_SHARES = np.array([0.001, 0.01, 0.05, 0.083, 0.16, 0.25, 0.50, 0.75, 0.90, 0.95, 0.99, 0.9999])
_BALANCES = np.array([-2500.0, -627.0, -172.0, 0.0, 1.0, 72.0, 448.0, 1428.0, 3574.0, 5768.0, 13165.0, 80000.0])
_BEND = 200.0


@dataclass(frozen=True, eq=False)
class Customers:
    """One kind's customers before outcomes: numbers and flags by column, codes by categorical column, all of length n.

    Numbers are float64 with NaN for missing, flags int8, codes int8 with -1 for missing; `churn`, `subscribe` and `respond` are logits
    without intercept, float64 [n], `persuade` what the campaign adds to a customer's, before its average is set.
    """

    numbers: dict[str, Floats]
    flags: dict[str, Codes]
    codes: dict[str, Codes]
    churn: Floats
    subscribe: Floats
    respond: Floats
    persuade: Floats


def draw_bank(traits: Traits, region: NDArray[np.int64], rng: np.random.Generator) -> Customers:
    """Draw the columns of n bank customers whose traits, float64 [n] each, and regions, int64 [n], are given."""
    age = age_of(traits["age"])
    codes = {"region": region.astype(np.int8), **_person(traits, age, rng)}
    numbers, flags = _money(traits, age, codes, rng)
    numbers["age"] = age
    use, codes["channel"] = _use(traits, age, rng)
    numbers |= use
    codes["earlier"] = _earlier(traits, rng)
    codes["job"] = forget(codes["job"], 0.006, rng)
    codes["education"] = forget(codes["education"], 0.041, rng)
    return Customers(
        numbers,
        flags,
        codes,
        churn=_churn(traits, numbers, flags),
        subscribe=_subscribe(traits, numbers, flags, codes),
        respond=0.5 * traits["engagement"] + 0.3 * flags["deposit"] - 0.3 * flags["housing"],
        persuade=_persuade(traits, codes["channel"] == CHANNELS.index("app")),
    )


def _person(traits: Traits, age: Floats, rng: np.random.Generator) -> dict[str, Codes]:
    n = len(age)
    school = blend(traits, {"affluence": 0.55, "age": -0.25}, rng)
    schooling = np.searchsorted(_SCHOOLING_AT, school).astype(np.int8)
    draw = rng.random(n)
    job = np.empty(n, dtype=np.int8)
    for level, row in enumerate(_JOBS_AT):
        mine = schooling == level
        job[mine] = np.searchsorted(row[:-1], draw[mine])
    life = rng.random(n)
    job[life < np.interp(age, _AGES, _STUDENT)] = JOBS.index("student")
    job[life > 1.0 - np.interp(age, _AGES, _RETIRED)] = JOBS.index("retired")
    bond = rng.random(n)
    single = np.interp(age, _AGES, _SINGLE)
    marital = np.where(bond < single, 2, np.where(bond > 1.0 - np.interp(age, _AGES, _DIVORCED), 0, 1))
    return {"education": schooling, "job": job, "marital": marital.astype(np.int8)}


def _money(
    traits: Traits, age: Floats, codes: dict[str, Codes], rng: np.random.Generator
) -> tuple[dict[str, Floats], dict[str, Codes]]:
    """Draw balance and income, and the products held; a loan in default comes with a low balance."""
    affluence, price = traits["affluence"], traits["price_sensitivity"]
    working = ~np.isin(codes["job"], [JOBS.index("student"), JOBS.index("retired"), JOBS.index("unemployed")])
    home = np.interp(age, _AGES, _HOUSING)
    housing = happens(at_rate(np.log(home / (1 - home)) + 0.5 * working - 0.25 * affluence, SHARE_HOUSING), rng)
    lent = np.interp(age, _AGES, _LOAN)
    loan = happens(at_rate(np.log(lent / (1 - lent)) + 0.3 * working - 0.2 * affluence + 0.15 * price, SHARE_LOAN), rng)
    money = blend(traits, {"affluence": 0.6, "age": 0.12, "attachment": 0.15}, rng) - 0.25 * (loan - SHARE_LOAN)
    default = happens(at_rate(-1.1 * money + 0.5 * loan, SHARE_DEFAULT), rng)
    shares = ndtri(_BALANCE_SHARES)
    balance = np.round(_BEND * np.sinh(np.interp(money, shares, np.arcsinh(_BALANCES / _BEND))))
    earning = 7.35 + 0.35 * working + 0.1 * codes["education"]
    income = np.round(np.exp(earning + 0.35 * blend(traits, {"affluence": 0.8}, rng)), -1)
    flags = {
        "housing": housing,
        "loan": loan,
        "default": default,
        "card": happens(at_rate(0.5 * traits["engagement"] + 0.4 * affluence, SHARE_CARD), rng),
        "deposit": happens(at_rate(0.8 * money + 0.02 * (age - 40.0), SHARE_DEPOSIT), rng),
        "salary": happens(at_rate(1.5 * working + 0.6 * traits["attachment"], 0.55), rng),
    }
    return {"balance": balance, "income": income}, flags


def _use(traits: Traits, age: Floats, rng: np.random.Generator) -> tuple[dict[str, Floats], Codes]:
    """Draw how the customer uses the bank, in numbers, and the main channel."""
    engagement, digital, attachment = traits["engagement"], traits["digital"], traits["attachment"]
    old = (age - 40.0) / 10.0
    channel = choose([0.3 * old - 0.7 * digital, 0.3 + 0.0 * old, 0.3 - 0.15 * old + 0.8 * digital], rng)
    branch, app = channel == CHANNELS.index("branch"), channel == CHANNELS.index("app")
    rate = np.exp(2.3 + 0.55 * engagement + 0.2 * traits["affluence"]) * rng.gamma(2.0, 0.5, len(age))
    years = np.minimum(-8.0 * np.log1p(-standing(traits["tenure"])), age - 16.0)
    idle = rng.exponential(1.0, len(age)) * 90.0 / (1.0 + rate) * np.exp(-0.45 * attachment)
    numbers = {
        "tenure": np.round(years, 1),
        "transactions": rng.poisson(rate).astype(np.float64),
        "logins": rng.poisson(np.exp(0.6 + 0.5 * engagement + 0.6 * digital + 0.9 * app)).astype(np.float64),
        "branch_visits": rng.poisson(np.exp(0.1 + 1.1 * branch - 0.3 * digital)).astype(np.float64),
        "complaints": rng.poisson(np.exp(-1.5 - 0.55 * attachment)).astype(np.float64),
        "inactive_days": np.floor(np.minimum(idle, 365.0)),
    }
    return numbers, channel


def _earlier(traits: Traits, rng: np.random.Generator) -> Codes:
    """Draw what came of an earlier campaign, -1 for whoever was in none; success shows a little of how persuadable somebody is."""
    n = len(traits["age"])
    zero = np.zeros(n)
    outcome = choose([0.75 + zero, -0.25 + zero, -0.6 + 0.7 * traits["persuadability"]], rng)
    return np.where(rng.random(n) < SHARE_CONTACTED_EARLIER, outcome, np.int8(-1))


def _churn(traits: Traits, numbers: dict[str, Floats], flags: dict[str, Codes]) -> Floats:
    """Poor service counts for more with little tie to the bank, and price for more with whoever holds no loan."""
    products = flags["card"] + flags["deposit"] + flags["loan"] + flags["housing"]
    complaints = np.minimum(numbers["complaints"], 5.0)
    return np.asarray(
        -0.75 * traits["attachment"]
        - 0.45 * traits["engagement"]
        + 0.25 * np.log1p(numbers["inactive_days"])
        + 0.45 * complaints * (1.0 - 0.5 * flags["salary"])
        + 0.35 * traits["price_sensitivity"] * (1.0 - flags["housing"])
        - 0.35 * np.log1p(numbers["tenure"])
        - 0.4 * products
        - 0.5 * flags["salary"]
    )


def _subscribe(traits: Traits, numbers: dict[str, Floats], flags: dict[str, Codes], codes: dict[str, Codes]) -> Floats:
    """Return the logit of taking a deposit: money, few obligations, the young and the old, success before, and what nobody sees."""
    age, app = numbers["age"], codes["channel"] == CHANNELS.index("app")
    money = np.arcsinh(np.maximum(numbers["balance"], -500.0) / 500.0)
    return np.asarray(
        0.18 * money
        - 0.75 * flags["housing"]
        - 0.55 * flags["loan"]
        - 0.4 * flags["default"]
        + 1.0 / (1.0 + np.exp((age - 24.0) / 2.0))
        + 1.8 / (1.0 + np.exp((61.0 - age) / 2.0))
        + 0.9 * (codes["job"] == JOBS.index("student"))
        + 2.8 * (codes["earlier"] == EARLIER.index("success"))
        + 0.15 * (codes["earlier"] >= 0)
        + 0.25 * (codes["education"] == SCHOOLING.index("tertiary"))
        + 0.3 * traits["digital"] * app
        - 0.25 * traits["price_sensitivity"]
        + 0.6 * traits["persuadability"]
        + 0.3 * traits["attachment"]
    )


def _persuade(traits: Traits, app: NDArray[np.bool_]) -> Floats:
    """Return how much a contact moves the logit of a response: more for the persuadable and in the app, less than nothing for some."""
    return np.asarray(
        0.55 * traits["persuadability"]
        + 0.35 * traits["attachment"]
        + 0.4 * app
        - 0.3 * traits["digital"] * (1.0 - app)
        + 0.2 * traits["price_sensitivity"]
    )

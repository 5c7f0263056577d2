"""Which articles of the GDPR and of China's PIPL a section of the report bears on. Orientation, not legal advice."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Article:
    """One article: the law, its number, and its subject in a few words."""

    law: str
    number: str
    subject: str


GDPR: Mapping[str, str] = {
    "5": "principles: purpose limitation, data minimisation, storage limitation, integrity, accountability",
    "6": "lawfulness of processing",
    "7": "conditions for consent; withdrawal at any time, as easy as giving it",
    "13": "information where data are collected from the person",
    "14": "information where data come from elsewhere",
    "15": "right of access",
    "17": "right to erasure",
    "21": "right to object, to direct marketing at any time",
    "22": "decisions based solely on automated processing, profiling included",
    "24": "responsibility of the controller, who must be able to demonstrate compliance",
    "25": "data protection by design and by default",
    "26": "joint controllers",
    "30": "records of processing activities",
    "32": "security of processing",
    "35": "data protection impact assessment",
}
PIPL: Mapping[str, str] = {
    "6": "clear and reasonable purpose, the least impact, the smallest scope of collection",
    "7": "openness and transparency",
    "13": "legal bases, consent first among them",
    "14": "informed, voluntary and explicit consent; anew when purpose, method or kinds of data change",
    "15": "withdrawal of consent by a convenient way; what was done before stays lawful",
    "16": "no refusal of a service because consent is not given or is withdrawn, unless the data are needed for it",
    "17": "what people must be told beforehand",
    "19": "kept no longer than the purpose needs",
    "20": "several handlers who decide together",
    "23": "providing personal information to another handler: notice and separate consent",
    "24": "automated decisions: transparent and fair, a way out of personalised marketing",
    "28": "sensitive information, financial accounts among it",
    "44": "right to know, to decide, to restrict and to refuse",
    "45": "right to access and copy",
    "47": "deletion, as when consent is withdrawn",
    "51": "internal rules, classification, encryption and de-identification, access rights, training, emergency plans",
    "54": "regular compliance audits",
    "55": "impact assessment beforehand, with a record of the processing",
    "56": "what the assessment covers; report and record are kept for three years at least",
}
SECTIONS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "assessment": (("5", "24", "25", "35"), ("6", "28", "51", "55", "56")),
    "purposes": (("5", "6"), ("6", "13")),
    "data": (("5", "25"), ("6", "19", "28")),
    "recipients": (("26", "30"), ("20", "23")),
    "risks": (("32", "35"), ("51", "56")),
    "policies": (("24", "25"), ("51", "54")),
    "approvals": (("5", "24"), ("51", "54")),
    "budget": (("5", "25", "32"), ("6", "51")),
    "releases": (("15", "30"), ("7", "45", "55")),
    "refusals": (("5", "24"), ("6", "54")),
    "consent": (("7", "13", "14", "17", "21"), ("14", "15", "16", "17", "44", "47")),
    "lists": (("21", "22", "32"), ("24", "51")),
    "models": (("13", "22"), ("17", "24")),
    "ledger": (("5", "24", "30"), ("51", "54", "56")),
}
"""For each section the numbers of the articles: GDPR, then PIPL."""


def beside(section: str) -> str:
    """Return the articles that stand beside a section, in one line."""
    gdpr, pipl = SECTIONS[section]
    return f"GDPR Art. {', '.join(gdpr)} · PIPL Art. {', '.join(pipl)}"


def annex() -> tuple[Article, ...]:
    """Return every article that is named, with its subject."""
    rows = [Article("GDPR", number, subject) for number, subject in GDPR.items()]
    return (*rows, *(Article("PIPL", number, subject) for number, subject in PIPL.items()))

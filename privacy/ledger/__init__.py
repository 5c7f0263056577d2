"""The budget ledger: it decides whether anything may be released, and proves afterwards what was."""

from privacy.ledger.entries import Account, Entry, Reservation
from privacy.ledger.ledger import Clock, Ledger, system_clock
from privacy.ledger.reader import LedgerReader, Spending, TreeHead
from privacy.ledger.verify import Finding, Verification, verify

__all__ = [
    "Account",
    "Clock",
    "Entry",
    "Finding",
    "Ledger",
    "LedgerReader",
    "Reservation",
    "Spending",
    "TreeHead",
    "Verification",
    "system_clock",
    "verify",
]

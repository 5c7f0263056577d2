"""What a running demo shows: a live view on a terminal, plain lines where nobody watches."""

from collections.abc import Callable

from rich.console import Console
from rich.markup import escape

from server.events import (
    Delivered,
    Evaluated,
    Event,
    GrantsReceived,
    LeftOut,
    Reported,
    RosterSettled,
    RoundDone,
    StudySigned,
    Witnessed,
)
from simulations.progress import ProgressView
from simulations.words import size

PLAIN_EVERY = 10
"""Without a terminal, one line for so many rounds."""


class LiveView(ProgressView):
    """Shows stages and a study's events."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._bytes = 0
        self._witnesses: list[int] = []
        self._members = 0
        self._counted = False
        self._handlers: dict[type, Callable[..., None]] = {
            StudySigned: self._signed,
            RosterSettled: self._roster,
            GrantsReceived: self._grants,
            LeftOut: self._left_out,
            RoundDone: self._round,
            Evaluated: self._evaluated,
            Reported: self._reported,
            Delivered: self._delivered,
            Witnessed: self._witnessed,
        }

    def stage(self, text: str) -> None:
        """Show a heading."""
        self._console.print(f"[bold]{escape(text)}[/bold]", soft_wrap=True)

    def say(self, text: str) -> None:
        """Show one line of detail."""
        self._console.print(f"  {escape(text)}", soft_wrap=True)

    def event(self, event: Event) -> None:
        """Show a study's event; those that say nothing to a person pass by."""
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)

    def _signed(self, event: StudySigned) -> None:
        self.say(
            f"study {event.name} signed: {event.study[:12]}, {event.rounds} rounds, {len(event.members)} institutions invited"
        )
        self._bytes = 0
        self._witnesses = []
        self._counted = False
        self._task = self._progress.add_task(event.name, total=event.rounds, note="")

    def _roster(self, event: RosterSettled) -> None:
        missing = f"; not there: {', '.join(event.missing)}" if event.missing else ""
        self.say(f"{len(event.present)} institutions proved who they are{missing}")

    def _grants(self, event: GrantsReceived) -> None:
        granted = ", ".join(
            f"{name} ε {epsilon:g}" for name, epsilon in zip(event.granted, event.epsilons, strict=True)
        )
        declined = f"; declined: {', '.join(event.declined)}" if event.declined else ""
        self._members = len(event.granted)
        self.say(f"granted: {granted}{declined}")

    def _left_out(self, event: LeftOut) -> None:
        self.say(f"{event.phase}, round {event.round}: {event.who} left out: {event.code} {event.reason}")

    def _round(self, event: RoundDone) -> None:
        self._bytes += event.bytes_sent + event.bytes_received
        note = f"{len(event.answered)} answered · {event.seconds:.2f} s · {size(self._bytes)}"
        if self._task is not None:
            self._progress.update(self._task, completed=event.round, note=note)
        if not self._console.is_terminal and (event.round % PLAIN_EVERY == 0 or event.round == event.rounds):
            self.say(f"round {event.round}/{event.rounds}: {note} in all")

    def _evaluated(self, event: Evaluated) -> None:
        if event.auc is None or event.interval is None:
            self.say("evaluation: too few positives for the noise, so nothing is said")
        else:
            low, high = event.interval
            self.say(f"evaluation as the coordinator sees it: AUC {event.auc:.3f} ({low:.3f} to {high:.3f})")

    def _reported(self, event: Reported) -> None:
        self._counted = True
        self.say(f"report {event.name} published: {event.digest[:12]}")

    def _delivered(self, event: Delivered) -> None:
        what = "report" if self._counted else "model"
        agreed = f"all hold the same {what}" if event.agreed else f"NOT all hold the same {what}"
        self.say(f"{what} delivered to {len(event.receipts)} institutions; {agreed}")

    def _witnessed(self, event: Witnessed) -> None:
        """Say once that all ledgers were witnessed; whose was not is reported as left out."""
        self._witnesses.append(len(event.witnesses) if event.returned else 0)
        if len(self._witnesses) == self._members and min(self._witnesses):
            fewest = min(self._witnesses)
            self.say(
                f"{self._members} ledgers' heads witnessed by the coordinator and by others, at least {fewest} each"
            )

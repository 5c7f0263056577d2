"""What can go wrong between this machine and a link, in words of our own."""

import httpx
from flwr.common.constant import ErrorCode
from flwr.supercore.error import FlowerError
from flwr.supercore.run import RunNotRunningException

from federation.errors import FederationError, OfflineError

UNREACHABLE = frozenset(
    {ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.REPLY_MESSAGE_UNAVAILABLE, ErrorCode.NODE_UNAVAILABLE}
)
"""Flower's error codes for a node that cannot be reached."""
APP_FAILED = int(ErrorCode.CLIENT_APP_RAISED_EXCEPTION)
"""Flower's error code for an app that failed while it answered."""

NODE_AWAY = int(ErrorCode.NODE_UNAVAILABLE)
"""Flower's error code for a node that is not on line."""

EXPIRED = int(ErrorCode.MESSAGE_UNAVAILABLE)
"""Flower's error code for a request whose time ran out before it was answered."""

LINK_ERRORS = (httpx.HTTPError, RunNotRunningException)
"""What a call raises when the other side is not there, refuses it, or has ended the run."""

_GONE = (401, 403, 404)


def is_gone(error: BaseException) -> bool:
    """Whether a failed call says that the run or task is over, as against a link that is away for a while."""
    if isinstance(error, RunNotRunningException):
        return True
    return isinstance(error, httpx.HTTPStatusError) and error.response.status_code in _GONE


def explain(error: BaseException, address: str) -> FederationError | OfflineError:
    """Return what to raise for a call that failed: CSL-F331 when nobody answers there, CSL-F332 when the link refuses."""
    if isinstance(error, httpx.HTTPStatusError):
        told = FlowerError.from_json(error.response.text)
        why = f"{told.message} (code {told.code})" if told else f"HTTP status {error.response.status_code}"
        return FederationError("CSL-F332", f"The link at {address} refuses: {why}.", "See the link's log.")
    if isinstance(error, RunNotRunningException):
        return FederationError("CSL-F332", f"The link at {address} has ended this run.", "Start the study again.")
    return OfflineError(
        "CSL-F331",
        f"The link at {address} does not answer ({type(error).__name__}).",
        "Check that it runs and that address and certificate are right; see `doctor`.",
    )

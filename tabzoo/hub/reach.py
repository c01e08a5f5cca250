"""Whether a Hub file can be had, found out quickly: one request, and a limit that holds whatever the network does."""

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

from huggingface_hub import constants, get_session, try_to_load_from_cache

from tabzoo.errors import WeightsError, brief

__all__ = ["REACH_SECONDS", "endpoint", "local_copy", "silence_of", "within"]

REACH_SECONDS = 8.0
"""How long the Hub may take to answer before it counts as unreachable."""

_Result = TypeVar("_Result")


def endpoint() -> str:
    """The Hub's address: a mirror's where HF_ENDPOINT names one."""
    return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")


def local_copy(repository: str, filenames: Sequence[str]) -> Path | None:
    """The cached copy of a Hub file when the Hub does not answer; None when it does, so that a library may fetch it.

    The libraries' own way tries each request six times and takes 50 s to fail on a machine without a network; one
    request to the Hub tells the same within `REACH_SECONDS`.

    Args:
        repository: Hub repository, "organisation/name".
        filenames: The names the file may have, the preferred one first.

    Raises:
        WeightsError: The Hub does not answer and no copy is cached; the text is the cause, in a few words.
    """
    cause = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else silence_of(endpoint())
    if cause is None:
        return None
    for filename in filenames:
        cached = try_to_load_from_cache(repository, filename)
        if isinstance(cached, str):
            return Path(cached)
    raise WeightsError(f"{cause}, and the Hub cache holds no copy of {repository} ({' or '.join(filenames)})")


def silence_of(address: str) -> str | None:
    """Why nothing answers at an address, or None when something does."""
    try:
        # Any answer will do, an error status too: it shows that the way there is open.
        within(REACH_SECONDS, lambda: get_session().head(address, timeout=REACH_SECONDS))
    except Exception as error:  # requests' or httpx's own errors, by the version of huggingface_hub
        return f"{address} does not answer ({brief(error)})"
    return None


def within(seconds: float, call: Callable[[], _Result]) -> _Result:
    """The call's result, or TimeoutError; the call itself is left behind in a thread that keeps no program alive.

    The time-outs of HTTP libraries count for each address of a host anew, and looking its name up has none.
    """
    future: Future[_Result] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        return future.result(timeout=seconds)
    except TimeoutError as error:
        raise TimeoutError(str(error) or f"no answer within {seconds:g} s") from error

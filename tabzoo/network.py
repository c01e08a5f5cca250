"""Whether there is a network: found out within a second or two, not after the 20 s and more of a library's retries."""

import os
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from huggingface_hub import constants

__all__ = ["hub_answers", "within"]

_Result = TypeVar("_Result")
_SECONDS = 1.5


def hub_answers() -> bool:
    """Whether something takes a connection at the Hub's address, or at the proxy before it. Nothing is sent or fetched."""
    if constants.HF_HUB_OFFLINE:
        return False
    try:
        place = _first_address()
        within(_SECONDS, lambda: socket.create_connection(place, timeout=_SECONDS).close())
    except (OSError, ValueError):  # TimeoutError is the first; the second: what a variable says is no address
        return False
    return True


def _first_address() -> tuple[str | None, int]:
    """Host and port of the Hub, or of the proxy before it."""
    address = urlsplit(os.environ.get("HF_ENDPOINT") or constants.ENDPOINT)
    proxy = None if proxy_bypass(address.hostname or "") else getproxies().get(address.scheme)
    if proxy:
        address = urlsplit(proxy if "//" in proxy else f"//{proxy}")
    return address.hostname, address.port or (443 if address.scheme == "https" else 80)


def within(seconds: float, call: Callable[[], _Result]) -> _Result:
    """The call's result, or TimeoutError; after that, it continues in a thread that does not keep the program alive.

    Timeouts of HTTP libraries start again for each address of a host, and do not cover the look-up of its name.
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

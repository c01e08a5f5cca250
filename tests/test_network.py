"""Whether the Hub can be reached, found out at once."""

import socket
import time
from collections.abc import Iterator

import pytest
from huggingface_hub import constants

from tabzoo import network
from tabzoo.network import hub_answers

NOBODY = "http://127.0.0.1:9"  # the discard port: nothing listens


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


@pytest.fixture
def server() -> Iterator[str]:
    """An address that takes connections."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_an_address_that_takes_connections(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", server)
    assert hub_answers()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert not hub_answers()


def test_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", NOBODY)
    assert not hub_answers()


@pytest.mark.parametrize("address", ["http://hub:port", "http://[hub", "hub", "http://" + "a" * 70])
def test_what_is_no_address(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "_SECONDS", 0.3)
    monkeypatch.setenv("HF_ENDPOINT", address)
    assert not hub_answers()


def test_the_proxy_is_asked_in_its_place(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.invalid")
    monkeypatch.setenv("http_proxy", server)
    assert hub_answers()
    monkeypatch.setenv("http_proxy", server.removeprefix("http://"))
    assert hub_answers()
    monkeypatch.setenv("no_proxy", "hub.invalid")
    monkeypatch.setattr(network, "_SECONDS", 0.3)
    assert not hub_answers()


def test_a_name_that_is_looked_up_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """The look-up has no time limit of its own."""
    monkeypatch.setattr(network, "_SECONDS", 0.2)
    monkeypatch.setattr("socket.create_connection", lambda *_, **__: time.sleep(3))
    begin = time.monotonic()
    assert not hub_answers()
    assert time.monotonic() - begin < 2

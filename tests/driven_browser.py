"""Drives a page in a headless browser by the DevTools protocol: files are chosen, buttons pressed, texts read.

The protocol goes through two pipes, so that no further package and no port is needed.
"""

import json
import os
import selectors
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fcntl import F_DUPFD, fcntl
from pathlib import Path
from typing import Any

from browser import CHROMIUM, FLAGS

_READ, _WRITE = 3, 4  # the descriptors at which the browser expects the pipes
_PATIENCE = 60.0


class DrivenPage:
    """A page that is open.

    Args:
        heard: What the browser writes.
        told: What it reads.

    Attributes:
        requests: Addresses that the page asked for.
        console: Errors of scripts, and those that the browser itself reports.
    """

    def __init__(self, heard: int, told: int) -> None:
        self._heard, self._told, self._number, self._rest = heard, told, 0, b""
        self._ready = selectors.DefaultSelector()
        self._ready.register(heard, selectors.EVENT_READ)
        self._session: str | None = None
        self.requests: list[str] = []
        self.console: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log", "DOM"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        """The result of a command."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._told, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def _next(self) -> Any:
        while b"\0" not in self._rest:
            assert self._ready.select(_PATIENCE), "the browser does not answer"
            self._rest += os.read(self._heard, 1 << 20)
        text, _, self._rest = self._rest.partition(b"\0")
        message = json.loads(text)
        self._note(message.get("method"), message.get("params", {}))
        return message

    def _note(self, method: str | None, about: Any) -> None:
        if method == "Network.requestWillBeSent":
            self.requests.append(about["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.console.append(str(about["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and about["type"] in ("error", "assert"):
            self.console.append(str(about["args"]))
        elif method == "Log.entryAdded" and about["entry"]["level"] == "error":
            self.console.append(str(about["entry"]))

    def evaluate(self, script: str) -> Any:
        """The value of an expression in the page."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait_for(self, script: str, *, patience: float = _PATIENCE) -> Any:
        """The value of an expression, once it is true."""
        end = time.monotonic() + patience
        while not (value := self.evaluate(script)):
            assert time.monotonic() < end, f"{script} did not come true; the page says: {self.text()}"
            time.sleep(0.05)
        return value

    def choose(self, selector: str, files: Sequence[Path]) -> None:
        """Gives files to an input."""
        self.wait_for(f"!!document.querySelector({selector!r})")
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path) for path in files])

    def click(self, selector: str) -> None:
        """Clicks on an element."""
        self.evaluate(f"document.querySelector({selector!r}).click()")

    def text(self) -> str:
        """All that can be read."""
        return str(self.evaluate("document.body.innerText"))


@contextmanager
def driven_page(address: str, profile: Path) -> Iterator[DrivenPage]:
    """Opens a page.

    Args:
        address: Of the page.
        profile: A folder for the browser's own files.
    """
    # High numbers first: the two that the browser expects may be in use here.
    from_us, told = (fcntl(end, F_DUPFD, 20) for end in os.pipe())
    heard, from_it = (fcntl(end, F_DUPFD, 20) for end in os.pipe())

    def connect() -> None:
        os.dup2(from_us, _READ)
        os.dup2(from_it, _WRITE)

    flags = (
        *FLAGS,
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        "--remote-debugging-pipe",
    )  # the last wins
    command = [str(CHROMIUM), *flags, f"--user-data-dir={profile}", "about:blank"]
    browser = subprocess.Popen(
        command, preexec_fn=connect, pass_fds=(_READ, _WRITE), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.close(from_us)
    os.close(from_it)
    try:
        page = DrivenPage(heard, told)
        page.call("Page.navigate", url=address)
        yield page
    finally:
        browser.kill()
        browser.wait()
        os.close(told)
        os.close(heard)

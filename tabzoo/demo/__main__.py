"""`tabzoo demo`: serves the page on this machine until Ctrl-C."""

import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import tyro

from tabzoo.command import run_command, say, show
from tabzoo.compute import choose_device
from tabzoo.demo.choices import checked_backbones
from tabzoo.demo.inspection import Settings
from tabzoo.demo.page import build_page, launch
from tabzoo.errors import InputError
from tabzoo.flags import check_number, optional
from tabzoo.signals import StopRequest, stop_requests

__all__ = ["Demo", "main"]

_LOCAL = ("127.0.0.1", "localhost", "::1")
_LARGEST_PORT = 65_535


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Open a page in the browser: a few good photos, one to inspect, the maps of several backbones side by side.

    The page runs on this machine, needs no network, and sends nothing. Photos lie in a temporary folder, which is removed when
    the command ends. Needs the extra `demo`.
    """

    backbone: Annotated[Sequence[str], optional("NAME|DIR [NAME|DIR ...]")] = ()
    """Backbones to choose from: a timm name, a run's folder, local-dir:DIR, hf-hub:ID, or random[:ARCHITECTURE].
    If not given: those whose weights are on this machine, and random."""
    false_alarms: Annotated[float, tyro.conf.arg(metavar="X")] = 0.01
    """Share of good parts that may be called defective. A verdict needs enough good photos: 99 for 0.01, 9 for 0.1."""
    size: Annotated[int | None, optional("PX")] = None
    """Side of the square that photos are squashed to. If not given: that of `tabzoo fit`."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto takes the GPU if there is one."""
    host: Annotated[str, tyro.conf.arg(metavar="ADDRESS")] = "127.0.0.1"
    """Address to serve at. 0.0.0.0: everyone who can reach this machine can open the page, and add photos."""
    port: Annotated[int, tyro.conf.arg(metavar="N")] = 7860
    """Port to serve at."""

    examples: ClassVar[tuple[str, ...]] = (
        "tabzoo demo",
        "tabzoo demo --backbone resnet18.tv_in1k runs/mine random --port 7861",
    )

    def run(self) -> int:
        """Serves the page until a signal."""
        self._check()
        choose_device(self.device)
        backbones = checked_backbones(self.backbone)
        # What is being computed when the command ends may still write into it.
        with tempfile.TemporaryDirectory(prefix="tabzoo-demo-", ignore_cleanup_errors=True) as work:
            os.environ["GRADIO_TEMP_DIR"] = work  # for the photos that are added
            settings = Settings(device=self.device, false_alarms=self.false_alarms, size=self.size, work=Path(work))
            page = build_page(backbones, settings)
            self._serve(page)
        return 0

    def _check(self) -> None:
        if not 1 <= self.port <= _LARGEST_PORT:
            raise InputError(f"--port {self.port}: expected 1 to {_LARGEST_PORT}")
        if not 0 < self.false_alarms < 1:
            raise InputError(
                f"--false-alarms {self.false_alarms:g}: expected a share above 0 and below 1, such as 0.01"
            )
        check_number("size", self.size, least=1)
        if not self.host:
            raise InputError("--host: '' given, expected an address, such as 127.0.0.1")

    def _serve(self, page: Any) -> None:
        with stop_requests() as request:
            try:
                launch(page, server_name=self.host, server_port=self.port, prevent_thread_lock=True)
            except OSError as error:
                raise InputError(
                    f"--host {self.host} --port {self.port}: can't be served at: it is in use, or not of this machine. Type "
                    f"another --port."
                ) from error
            if self.host not in _LOCAL:
                say(f"--host {self.host}: everyone who can reach this machine can open the page and add photos.")
            show(f"The page is at http://{self.host}:{self.port}/ until Ctrl-C.")
            _wait(request)
            page.close(verbose=False)


def _wait(request: StopRequest) -> None:
    while not request.signal:
        time.sleep(0.2)


def main(argv: Sequence[str] | None = None, *, prog: str = "python -m tabzoo.demo") -> int:
    """Runs the command line; returns 0, or 2 for a user's mistake."""
    return run_command(Demo, argv, prog=prog)


if __name__ == "__main__":
    sys.exit(main())

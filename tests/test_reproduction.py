"""The reproduction kit's scripts: the dry run from end to end, what a second start leaves alone, and what they refuse."""

import json
import os
import runpy
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from forked import start_forked
from PIL import Image

from tabzoo.data.layouts import find_samples
from tabzoo.scores.rows import REAL, read_rows

LAUNCH = Path(__file__).parents[1] / "training" / "launch"
METHODS = "padim rd4ad simplenet regad"
"""What the dry run of Table 2 measures; Table 4 is tried with the first, since a minute is long."""

# Takes the place of `python` in the scripts: hands its command to the test's process, where torch and timm are imported
# already, since each of some 15 starts would take seconds.
CLIENT = """#!{python} -SE
import json, os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
command = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(server, [len(command).to_bytes(8, "big")], [0, 1, 2])
server.sendall(command)
sys.exit(server.recv(1)[0])
"""

Launch = Callable[..., "subprocess.CompletedProcess[str]"]


def run_command(connection: socket.socket) -> None:
    """Runs one `python ...` of a script in a forked process, and sends back its exit code."""
    head, descriptors, _, _ = socket.recv_fds(connection, 8, 3)
    with connection.makefile("rb") as stream:
        arguments, folder, variables = json.loads(stream.read(int.from_bytes(head, "big")))
    process = start_forked(arguments, folder=folder, descriptors=descriptors, variables=variables)
    for descriptor in descriptors:
        os.close(descriptor)
    connection.send(bytes([os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) & 255]))


@pytest.fixture
def launch(tmp_path_factory: pytest.TempPathFactory, sketches: None) -> Launch:
    """Starts a script of the kit with some variables."""

    def start(script: str, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        folder = tmp_path_factory.mktemp("launch")
        address, python = str(folder / "socket"), folder / "python"
        python.write_text(CLIENT.format(python=sys.executable, address=address))
        python.chmod(0o755)
        environment = os.environ | {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"} | variables
        command = [LAUNCH / script, *arguments]
        with (
            socket.socket(socket.AF_UNIX) as server,
            (folder / "out").open("w+") as out,
            (folder / "err").open("w+") as err,
        ):
            server.bind(address)
            server.listen()
            server.settimeout(0.05)
            running = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
            while running.poll() is None:
                with suppress(TimeoutError):
                    connection, _ = server.accept()
                    with connection:
                        connection.setblocking(True)
                        run_command(connection)
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(command, running.returncode, out.read(), err.read())

    return start


@pytest.mark.slow
def test_dry_run_and_a_second_start(launch: Launch, tmp_path: Path) -> None:
    def start(table: str, methods: str) -> str:
        done = launch("dry_run.sh", str(tmp_path), table, METHODS=methods)
        assert done.returncode == 0, done.stderr
        return done.stdout

    start("2", METHODS)
    start("4", "padim")
    rows = {name: read_rows(tmp_path / name) for name in ("mvtec", "mvtec_regad", "btad", "ksdd2")}
    # Backbones x classes x methods, or x shots.
    wanted = {"mvtec": 2 * 3 * 3, "mvtec_regad": 2 * 3 * 2, "btad": 2 * 3, "ksdd2": 2}
    assert {name: len(of) for name, of in rows.items()} == wanted
    every = [row for of in rows.values() for row in of]
    assert {row.method for row in every} == set(METHODS.split())
    assert all(row.image_auroc is not None and row.test == REAL for row in every)
    # Weights of MVTec AD's classes are tested on these in Table 2, and on others, or are the Industrial dataset's.
    assert {row.transductive for row in rows["mvtec"] if row.backbone != "random"} == {True}
    assert not any(row.transductive for name in ("mvtec_regad", "btad", "ksdd2") for row in rows[name])
    assert "numbers of images are not MVTec AD's: capsule of MVTec_AD" in (tmp_path / "table2.md").read_text()
    assert "| BTAD average (3) " in (tmp_path / "table4.md").read_text()

    kept = [*tmp_path.glob("*/results.jsonl"), *tmp_path.glob("weights/*/model.safetensors")]
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in kept}
    assert "is finished; nothing to do" in start("2", "padim")
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in kept} == before


@pytest.mark.slow
def test_toy_datasets_have_the_layouts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["toy_datasets.py", str(tmp_path / "data"), *"--size 32 --train 3 --test 3".split()]
    monkeypatch.setattr(sys, "argv", command)
    for _ in range(2):  # a second time it leaves all as it is
        runpy.run_path(str(LAUNCH / "toy_datasets.py"), run_name="__main__")
    found = {path.name: find_samples(path) for path in sorted((tmp_path / "data").iterdir())}
    assert {name: samples.layout for name, samples in found.items()} == {
        "BTAD": "btad",
        "Industrial": "industrial",
        "KSDD2": "ksdd2",
        "MVTec_AD": "mvtec",
    }
    counts = {
        name: (len(samples.classes), len(samples), int((samples.labels == 1).sum())) for name, samples in found.items()
    }
    # Classes, images, defects; KSDD2 has one of its defects in the train split.
    assert counts == {"BTAD": (3, 27, 9), "Industrial": (2, 6, 0), "KSDD2": (1, 9, 3), "MVTec_AD": (3, 27, 9)}
    # No image lies in two of them, so a table that took one data set for another would show.
    files = [samples.path(i) for samples in found.values() for i in range(len(samples))]
    assert len({Image.open(path).convert("RGB").tobytes() for path in files}) == len(files) == 69


@pytest.mark.parametrize(
    ("script", "variables", "message"),
    [
        ("reproduce_table2.sh", {}, "error: MVTEC is not set: MVTec AD, CLASS/train/good/*.png. Type: MVTEC=DIR"),
        ("reproduce_table2.sh", {"MVTEC": "/no/such"}, "error: MVTEC=/no/such: no such folder"),
        ("reproduce_table2.sh", {"MVTEC": "."}, "error: INDUSTRIAL is not set"),
        (
            "reproduce_table2.sh",
            {"MVTEC": ".", "TAB_INDUSTRIAL": "no/such"},
            "error: TAB_INDUSTRIAL=no/such: no such folder",
        ),
        (
            "reproduce_table2.sh",
            {"METHODS": " "},
            "error: METHODS is empty; expected some of padim rd4ad simplenet regad",
        ),
        ("reproduce_table4.sh", {"IMAGENET": ""}, "error: IMAGENET is empty"),
        ("reproduce_table2.sh", {"METHODS": "padin"}, "padin is none of padim rd4ad simplenet regad"),
        ("reproduce_table4.sh", {"MVTEC": ".", "BTAD": "."}, "error: KSDD2 is not set"),
        ("reproduce_table4.sh", {"METHODS": "regad"}, "regad is none of padim rd4ad simplenet"),
    ],
)
def test_what_is_missing_is_named(launch: Launch, script: str, variables: dict[str, str], message: str) -> None:
    done = launch(script, **variables)
    assert done.returncode == 2
    assert message in done.stderr

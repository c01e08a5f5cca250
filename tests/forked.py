"""Runs a Python command line in a forked process, where torch and timm are imported already: a start would take seconds."""

import json
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

# Takes the place of `python` or `tabzoo` in a script: hands its command to the test's process.
CLIENT = """#!{python} -SE
import json, os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
command = json.dumps([{before!r} + sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(server, [len(command).to_bytes(8, "big")], [0, 1, 2])
server.sendall(command)
sys.exit(server.recv(1)[0])
"""
PROGRAMS: Mapping[str, Sequence[str]] = {"python": [], "tabzoo": ["-m", "tabzoo"]}
"""Name in a script to what stands after `python`."""


def start_forked(
    arguments: Sequence[str],
    *,
    folder: str | Path,
    descriptors: Sequence[int],
    variables: Mapping[str, str] | None = None,
) -> int:
    """Runs `python ARGUMENTS` in a folder, and returns the number of the process.

    Args:
        arguments: What stands after `python`: -m and a module, -c and code, or a file, and its arguments.
        folder: Where it runs.
        descriptors: Its stdin, stdout and stderr, or the latter two.
        variables: Its environment; this process's if not given.
    """
    if (process := os.fork()) != 0:
        return process
    code = 99
    try:
        for number, descriptor in zip((0, 1, 2)[-len(descriptors) :], descriptors, strict=True):
            os.dup2(descriptor, number)
        sys.stdout, sys.stderr = (os.fdopen(number, "w") for number in (1, 2))
        os.chdir(folder)
        if variables is not None:
            os.environ.clear()
            os.environ.update(variables)
        warnings.simplefilter("ignore")
        if "tabzoo.hub.registry" in sys.modules:  # a new process would register what is installed by now
            sys.modules["tabzoo.hub.registry"].register()
        if arguments[0] == "-m":
            sys.argv = list(arguments[1:])
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        elif arguments[0] == "-c":
            sys.argv = ["-c", *arguments[2:]]
            exec(compile(arguments[1], "<string>", "exec"), {"__name__": "__main__"})
        else:
            sys.argv = list(arguments)
            sys.path.insert(0, str(Path(arguments[0]).parent))
            runpy.run_path(arguments[0], run_name="__main__")
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def run_script(
    command: Sequence[str | Path], *, folder: str | Path | None = None, variables: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """Runs a script whose `python` and `tabzoo` commands run in forked processes.

    Args:
        command: What to run.
        folder: Where; here if not given.
        variables: Added to its environment.
    """
    with tempfile.TemporaryDirectory() as work, socket.socket(socket.AF_UNIX) as server:
        address = str(Path(work) / "socket")
        for name, before in PROGRAMS.items():
            program = Path(work) / name
            program.write_text(CLIENT.format(python=sys.executable, address=address, before=list(before)))
            program.chmod(0o755)
        environment = os.environ | {"PATH": f"{work}{os.pathsep}{os.environ['PATH']}"} | (variables or {})
        server.bind(address)
        server.listen()
        server.settimeout(0.05)
        with (Path(work) / "out").open("w+") as out, (Path(work) / "err").open("w+") as err:
            running = subprocess.Popen(
                command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err
            )
            while running.poll() is None:
                with suppress(TimeoutError):
                    connection, _ = server.accept()
                    with connection:
                        connection.setblocking(True)
                        _run_command(connection)
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(command, running.returncode, out.read(), err.read())


def _run_command(connection: socket.socket) -> None:
    """Runs one `python ...` of a script in a forked process, and sends back its exit code."""
    head, descriptors, _, _ = socket.recv_fds(connection, 8, 3)
    with connection.makefile("rb") as stream:
        arguments, folder, variables = json.loads(stream.read(int.from_bytes(head, "big")))
    process = start_forked(arguments, folder=folder, descriptors=descriptors, variables=variables)
    for descriptor in descriptors:
        os.close(descriptor)
    connection.send(bytes([os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) & 255]))

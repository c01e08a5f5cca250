"""The `tabzoo` command: one name for the modules' own command lines.

Nothing here imports torch or timm: the list, the version and the help are there at once.
"""

import importlib
import platform
import signal
import sys
from collections.abc import Callable, Sequence
from importlib import metadata

from tabzoo._version import __version__
from tabzoo.command import guarded, say
from tabzoo.errors import InputError, did_you_mean
from tabzoo.hub.overview import print_overview
from tabzoo.system import cpu_extensions

__all__ = ["COMMANDS", "main"]

_INSPECT, _HUB = "tabzoo.inspect.__main__", "tabzoo.hub.__main__"
_GROUPS = {
    "Make and measure": {
        "pretrain": ("tabzoo.training.pretrain", "make a backbone from a folder of good images"),
        "text": ("tabzoo.training.text_command", "make text features alone, for a machine without network"),
        "trial": ("tabzoo.trial.__main__", "is pre-training worth it on your photos? a verdict and a page"),
        "benchmark": (
            "tabzoo.benchmark.__main__",
            "measure backbones (PaDiM, RD4AD and others) and synthetic anomalies",
        ),
        "data": ("tabzoo.data.__main__", "look at a folder of images"),
    },
    "From photos to verdicts": {
        "fit": (_INSPECT, "make a detector from good photos: a folder that judges new ones"),
        "score": (_INSPECT, "score photos with a detector: good or defective"),
        "demo": ("tabzoo.demo.__main__", "a page in the browser: good photos, one to inspect, several backbones"),
        "export": (_INSPECT, "write a detector or a backbone as an ONNX file, with a proof that it agrees"),
    },
    "Get and give weights": {
        "list": (_HUB, "tabzoo's weights and those installed: state and licence"),
        "info": (_HUB, "show everything known about some weights"),
        "download": (_HUB, "download weights into a folder, for machines without network"),
        "verify": (_HUB, "verify a weights folder against its record"),
        "install": (_HUB, "install weights under a name on this machine"),
        "uninstall": (_HUB, "remove installed weights"),
        "convert": (_HUB, "convert a checkpoint of the authors to a weights folder"),
        "publish": (_HUB, "publish a weights folder to the Hugging Face Hub"),
    },
    "This machine": {
        "doctor": ("tabzoo.doctor", "versions, GPU, caches, network: for a report of a fault"),
        "cache": ("tabzoo.data.cache_command", "list and delete decoded images"),
    },
}
COMMANDS = {name: module for group in _GROUPS.values() for name, (module, _) in group.items()}
"""Name of each command to the module that runs it."""
_SHARED = (_INSPECT, _HUB)
"""Modules with several of these commands, which are given the command's name too."""
_COMPLETION = "--print-completion"
_END = """{prog} COMMAND --help tells more, with examples. {prog} --version: versions.
{prog} --print-completion bash|zsh: a script that completes commands and flags."""
_PACKAGES = ("torch", "torchvision", "timm", "huggingface_hub")


def main(
    argv: Sequence[str] | None = None, *, prog: str = "tabzoo", prepare: Callable[[], object] = lambda: None
) -> int:
    """Runs a command and returns its exit code.

    Args:
        argv: The arguments; those of the process if not given.
        prog: What a user types before them.
        prepare: Called before a module is imported that needs torch or timm.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    command, rest = (arguments[0], arguments[1:]) if arguments else ("help", [])
    if command == "help" and rest[:1] and rest[0] in COMMANDS:
        command, rest = rest[0], [*rest[1:], "--help"]
    if (command, rest) == ("list", []):
        return guarded(print_overview)
    if command in ("help", "-h", "--help"):
        return guarded(lambda: print(_usage(prog), end=""))
    if command == "--version":
        return guarded(lambda: print(_versions()))
    if command == _COMPLETION:
        return guarded(lambda: _print_completion(rest, prepare))
    if command not in COMMANDS:
        hint = did_you_mean(command, (*COMMANDS, "help", "--version", _COMPLETION))
        say(f"error: no command {command!r}.{hint or ' There are ' + ', '.join(COMMANDS) + '.'}\nSee {prog} --help")
        return 2
    try:
        prepare()
        module = importlib.import_module(COMMANDS[command])
        if COMMANDS[command] in _SHARED:
            return int(module.main([command, *rest], prog=prog))
        return int(module.main(rest, prog=f"{prog} {command}"))
    except KeyboardInterrupt:  # while the module is imported; commands handle their own
        say("\nStopped.")
        return 128 + signal.SIGINT


def _print_completion(arguments: Sequence[str], prepare: Callable[[], object]) -> None:
    from tabzoo.completion import SHELLS, completion_script

    if len(arguments) != 1 or arguments[0] not in SHELLS:
        raise InputError(f"{_COMPLETION} {' '.join(arguments)}: expected the name of a shell, {' or '.join(SHELLS)}")
    prepare()
    recipes = importlib.import_module("tabzoo.training.recipe").list_recipes()
    more = {("pretrain", "--recipe"): recipes, ("trial", "--recipe"): recipes}
    print(completion_script(arguments[0], list(COMMANDS), main, more_choices=more), end="")


def _versions() -> str:
    packages = ", ".join(f"{name} {metadata.version(name)}" for name in _PACKAGES)
    machine = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    return f"tabzoo {__version__}\n{packages}\n{machine}, CPU: {cpu_extensions()}"


def _usage(prog: str) -> str:
    lines = [f"usage: {prog} COMMAND ...", ""]
    for title, group in _GROUPS.items():
        lines += [title, *(f"  {name:10} {about}" for name, (_, about) in group.items()), ""]
    return "\n".join([*lines, *_END.format(prog=prog).splitlines()]) + "\n"

"""Runs a Python command line in a forked process, where torch and timm are imported already: a start would take seconds."""

import os
import runpy
import sys
import traceback
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path


def start_forked(
    arguments: Sequence[str],
    *,
    folder: str | Path,
    descriptors: Sequence[int],
    variables: Mapping[str, str] | None = None,
) -> int:
    """Runs `python ARGUMENTS` in a folder, and returns the number of the process.

    Args:
        arguments: What stands after `python`: -m and a module, or a file, and its arguments.
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
        if arguments[0] == "-m":
            sys.argv = list(arguments[1:])
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
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

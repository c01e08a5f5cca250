"""`python -m tabzoo.training.pretrain`: a recipe and a folder of good images in, a backbone that timm loads out.

This is the command: what it checks, resumes, reports and writes. `loop.py` is the training.
"""

import json
import logging
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

import torch

from tabzoo.command import log_to_terminal, print_anything, say
from tabzoo.compute import deterministic
from tabzoo.errors import ImageError, InputError, TabzooError, TrainingError, WriteError, brief
from tabzoo.hub.record import RECORD
from tabzoo.progress import showing
from tabzoo.signals import output_may_be_unread, stop_requests
from tabzoo.training import loop, output, quickstart, report
from tabzoo.training.command import MODULE, Command, again, parse
from tabzoo.training.normalisation import resolve_normalisation
from tabzoo.training.ranks import Ranks, join_ranks
from tabzoo.training.recipe import FILE_FIELDS, Recipe, changed_fields, load_recipe
from tabzoo.training.run_folder import RunFolder
from tabzoo.training.setup import build_run, check_settings

__all__ = ["main", "run"]

_PATIENCE = 25.0  # seconds; torchrun kills the remaining processes 30 s after it asked all to stop


def main(argv: Sequence[str] | None = None, *, prog: str = f"python -m {MODULE}") -> int:
    """Runs the command line and returns its exit code: 0 done, 2 for user errors, 128 + signal when stopped."""
    # The first process speaks for all: the others would repeat its warnings.
    log_to_terminal(logging.WARNING if _rank() == 0 else logging.ERROR)
    print_anything()
    with output_may_be_unread(), showing():
        return _main(list(sys.argv[1:] if argv is None else argv), prog)


def run(command: Command, arguments: Sequence[str]) -> int:
    """Runs a command, in each of the processes that train together.

    Args:
        command: What to do.
        arguments: The same as a command line, for messages that say what to type.

    Returns:
        0, or 128 + the signal that the run was stopped by. All steps that were done are then saved.

    Raises:
        TabzooError: A mistake that the user can fix.
    """
    kind = _device(command.device)
    ranks = join_ranks(kind)
    device = torch.device(kind, ranks.local) if kind == "cuda" else torch.device(kind)
    code = _pretrain(command, arguments, device, ranks)
    ranks.leave()
    return code


def _main(arguments: list[str], prog: str) -> int:
    try:
        return run(parse(arguments, prog=prog), arguments)
    except TabzooError as error:
        _say(f"error: {error}")
    except torch.OutOfMemoryError as error:
        _say(f"error: {error}\nType a smaller --batch-size, or --micro-batch N to keep the batch.")
    except RuntimeError as error:
        if not torch.distributed.is_initialized():  # a single process
            raise
        _say(_ended_by_another(arguments, brief(error)))
    except OSError as error:  # a folder that disappeared; earlier checkpoints are complete
        _say(f"error: {error}")
    except KeyboardInterrupt:
        _say("\nStopped before the first step; nothing is lost.")
        return 128 + signal.SIGINT
    return 2


def _ended_by_another(arguments: Sequence[str], here: str = "it waited in vain") -> str:
    return (
        f"error: this process stopped because another process of the run exited; see its error message (here: {here}). "
        f"Checkpoints are complete. To continue:\n  {_resuming(arguments)}"
    )


def _resuming(arguments: Sequence[str]) -> str:
    return again(arguments, "--resume", without=("--overwrite", "--resume"))


def _with_resume_command(error: WriteError | ImageError, arguments: Sequence[str]) -> TrainingError:
    return TrainingError(
        f"{error}. Earlier checkpoints are complete. Fix that, then continue:\n  {_resuming(arguments)}"
    )


def _say(message: str) -> None:
    say(f"process {_rank()}: {message}" if _rank() else message)


def _rank() -> int:
    given = os.environ.get("RANK", "0")
    return int(given) if given.isdecimal() else 0


def _pretrain(command: Command, arguments: Sequence[str], device: torch.device, ranks: Ranks) -> int:
    recipe_name = Path(command.recipe).stem if command.recipe.endswith(".yaml") else command.recipe
    folder = Path(command.output or f"runs/{recipe_name}")
    if recipe_name != quickstart.NAME and command.settings.data is None:
        raise InputError("--data is missing: type --data DIR, a folder of good images, CLASS/train/good/* or CLASS/*")
    _check_output(command)
    command = ranks.from_first(lambda: _with_normalisation(command, folder))
    with ExitStack() as stack:
        run_folder = RunFolder(folder, resume=command.resume, overwrite=command.overwrite, inputs=_inputs(command))
        if ranks.from_first(lambda: _is_finished(command, stack.enter_context(run_folder).folder)):
            return 0
        begun = command.resume and (folder / output.TEXT).is_file()
        ranks.from_first(lambda: check_settings(command.settings, device, begun=begun))
        recipe = ranks.from_first(lambda: quickstart.with_toy_factory(command.settings, folder))
        one_class = again(arguments, "--objective", "joint")  # of a flag that is there twice the last counts
        run, state = build_run(recipe, folder, device, command, ranks, one_class=one_class)
        if ranks.is_first:
            output.write_run(folder, run.recipe, run.text, command=again(arguments), device=device)
            run_folder.begun()
            report.announce(run, recipe_name, recipe.digest())
        patience = None if ranks.size == 1 else _PATIENCE
        try:
            with stop_requests(patience=patience, last_words=_ended_by_another(arguments)) as stop:
                asked = loop.train(run, state, stop)
        except (WriteError, ImageError) as error:
            raise _with_resume_command(error, arguments) from error
        if ranks.is_first and asked:
            print(
                f"\nStopped after step {state.step} of {run.total_steps}; all is saved. To continue:\n  {_resuming(arguments)}"
            )
        elif ranks.is_first:
            try:
                report.finish(run, state, recipe_name, recipe.digest())
                if command.settings.data is None and command.benchmark:
                    quickstart.benchmark_run(run)
            except (WriteError, ImageError) as error:
                raise _with_resume_command(error, arguments) from error
            except KeyboardInterrupt:
                _say(f"\nStopped after the last step; all steps are saved. To continue:\n  {_resuming(arguments)}")
                return 128 + signal.SIGINT
    return 128 + asked if asked else 0


def _with_normalisation(command: Command, folder: Path) -> Command:
    """The command with mean and std in its settings: digest, record and all else are of these numbers."""
    begun = None
    if command.resume:
        with suppress(InputError):  # no run yet
            begun = load_recipe(str(folder / output.RECIPE))
    return replace(command, settings=resolve_normalisation(command.settings, named=command.named, begun=begun))


def _check_output(command: Command) -> None:
    """A run among its own images would be found as a class the next time."""
    if command.output == "":
        raise InputError("--output: '' given, expected a folder")
    data = Path(command.settings.data) if command.settings.data else None
    if command.output and data and data.is_dir() and Path(command.output).resolve().is_relative_to(data.resolve()):
        raise InputError(f"--output {command.output}: is inside --data {data}. Name a folder outside the images.")


def _inputs(command: Command) -> dict[str, str | None]:
    """The flags that may name files or folders, and their values."""
    names = ("data", *FILE_FIELDS, "perlin_textures")
    return {"recipe": command.recipe, **{name.replace("_", "-"): getattr(command.settings, name) for name in names}}


def _is_finished(command: Command, folder: Path) -> bool:
    if command.resume and output.is_finished(folder):
        print(f"The run in {folder} is finished; nothing to do.")
        if changes := _changes(folder, quickstart.with_own_license(command.settings)):
            print(f"It was made with other settings: {changes}. For these, type --overwrite or name another --output.")
        return True
    return False


def _changes(folder: Path, recipe: Recipe) -> str:
    """How the settings of a finished run differ from the present ones; empty if they do not, or if it is unknown."""
    try:
        if json.loads((folder / RECORD).read_bytes())["recipe"]["sha256"] == recipe.digest():
            return ""
        before, now = load_recipe(str(folder / output.RECIPE)).identity(), recipe.identity()
    except (InputError, OSError, ValueError, LookupError, TypeError, RecursionError):
        return ""
    # Files count by their content, which the folder does not say; `auto` was resolved.
    unknown = (*FILE_FIELDS, "perlin_textures")
    changes = changed_fields(before, now).items()
    return "; ".join(
        f"{name} {was}, not {is_now}" for name, (was, is_now) in changes if name not in unknown and is_now != "auto"
    )


def _device(name: str) -> str:
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError(
            "--device cuda: torch finds no CUDA device here. Type --device cpu, or see https://pytorch.org for a CUDA build."
        )
    deterministic()
    return "cuda" if name == "auto" and torch.cuda.is_available() else name.replace("auto", "cpu")


if __name__ == "__main__":
    sys.exit(main())

"""`python -m tabzoo.training.pretrain`: a recipe and a folder of good images in, a backbone that timm loads out.

TAB, Algorithm 1 of arXiv 2312.09480. Every normal image gets a synthetic anomaly; the embeddings of both are aligned
with the frozen text features of their class's normal and abnormal sentences.
"""

import io
import json
import logging
import os
import shutil
import signal
import sys
import textwrap
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NoReturn

import torch
import yaml
from tqdm import tqdm

from tabzoo.command import log_to_terminal, say
from tabzoo.compute import CoreWatch
from tabzoo.data.toy import make_toy_factory
from tabzoo.errors import ImageError, InputError, TabzooError, TrainingError, WriteError, brief
from tabzoo.hub.folders import RECORD
from tabzoo.system import writing
from tabzoo.training import figures, output
from tabzoo.training.anomalies import syntheses
from tabzoo.training.command import Command, again, parse
from tabzoo.training.metrics import read_rows
from tabzoo.training.ranks import Ranks, StopVote, join_ranks
from tabzoo.training.recipe import FILE_FIELDS, Recipe, load_recipe
from tabzoo.training.run import Run
from tabzoo.training.run_folder import RunFolder
from tabzoo.training.setup import build_run, check_settings
from tabzoo.training.signals import StopRequest, output_may_be_unread, stop_requests

__all__ = ["main", "train"]

_QUICKSTART = "quickstart"


def train(run: Run, stop: StopRequest) -> int:
    """Algorithm 1, from the run's step to the last; or to the step at which a stop is asked for.

    Returns:
        The signal that asked, 0 if none did. All is saved.
    """
    recipe, vote, watch, asked = run.recipe, StopVote(run.ranks), CoreWatch(run.device), 0
    with _progress(run) as bar, closing(run.batches()) as batches:
        for pairs in batches:  # normal images, and synthetic anomalies of them
            run.optimise(pairs)  # both branches forward and backward, then one step of the weights
            run.step += 1

            bar.update()
            epoch = (run.step - 1) // run.steps_per_epoch
            if run.step % recipe.log_every == 0 or run.step == run.total_steps:
                bar.set_postfix(run.log(epoch), refresh=False)
                watch.check()
            if run.step % run.steps_per_epoch == 0:
                run.validate(epoch)
            if asked := vote(stop.signal):
                break
            if run.step % recipe.save_every == 0:
                run.save()
    run.save()
    return asked


def _progress(run: Run) -> "tqdm[NoReturn]":
    every = 0.1 if sys.stderr.isatty() else 30.0  # seconds; a log file needs fewer lines
    return tqdm(
        total=run.total_steps,
        initial=run.step,
        unit="step",
        mininterval=every,
        maxinterval=every,
        disable=not run.ranks.is_first,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code: 0 done, 2 for user errors, 128 + signal when stopped."""
    # What the first of several processes warns of, the others would too.
    log_to_terminal(logging.WARNING if _rank() == 0 else logging.ERROR)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name that can't be shown must not end a run
        sys.stdout.reconfigure(errors="backslashreplace")
    with output_may_be_unread():
        return _main(list(sys.argv[1:] if argv is None else argv))


def _main(arguments: list[str]) -> int:
    ranks = Ranks()
    try:
        command = parse(arguments)
        kind = _device(command.device)
        ranks = join_ranks(kind)
        device = torch.device(kind, ranks.local) if kind == "cuda" else torch.device(kind)
        code = _pretrain(command, arguments, device, ranks)
        ranks.leave()
        return code
    except TabzooError as error:
        _say(f"error: {error}")
    except torch.OutOfMemoryError as error:
        _say(f"error: {error}\nType a smaller --batch-size, or --micro-batch N to keep the batch.")
    except RuntimeError as error:
        if ranks.size == 1:
            raise
        _say(
            f"error: this process stopped because another process of the run exited; see its error message "
            f"(here: {brief(error)}). Checkpoints are whole. To go on:\n  {_resuming(arguments)}"
        )
    except OSError as error:  # a folder that went away: checkpoints written before it are whole
        _say(f"error: {error}")
    except KeyboardInterrupt:
        _say("\nStopped before the first step; nothing is lost.")
        return 128 + signal.SIGINT
    return 2


def _resuming(arguments: Sequence[str]) -> str:
    return again(arguments, "--resume", without=("--overwrite", "--resume"))


def _with_way_on(error: WriteError | ImageError, arguments: Sequence[str]) -> TrainingError:
    return TrainingError(
        f"{error}. Checkpoints written before are whole. Put that right, then go on:\n  {_resuming(arguments)}"
    )


def _say(message: str) -> None:
    say(f"process {_rank()}: {message}" if _rank() else message)


def _rank() -> int:
    given = os.environ.get("RANK", "0")
    return int(given) if given.isdecimal() else 0


def _pretrain(command: Command, arguments: Sequence[str], device: torch.device, ranks: Ranks) -> int:
    recipe_name = Path(command.recipe).stem if command.recipe.endswith(".yaml") else command.recipe
    folder = Path(command.output or f"runs/{recipe_name}")
    if recipe_name != _QUICKSTART and command.settings.data is None:
        raise InputError("--data is missing: type --data DIR, a folder of good images, CLASS/train/good/* or CLASS/*")
    with ExitStack() as stack:
        run_folder = RunFolder(folder, resume=command.resume, overwrite=command.overwrite, inputs=_inputs(command))
        if ranks.from_first(lambda: _is_finished(command, stack.enter_context(run_folder).folder)):
            return 0
        begun = command.resume and (folder / output.TEXT).is_file()
        ranks.from_first(lambda: check_settings(command.settings, device, begun=begun))
        recipe = ranks.from_first(lambda: _with_data(command.settings, folder))
        one_class = again(arguments, "--objective", "joint")  # of a flag that is there twice the last counts
        run = build_run(recipe, folder, device, command, ranks, one_class=one_class)
        if ranks.is_first:
            output.write_run(folder, run.recipe, run.text, command=again(arguments), device=device)
            run_folder.begun()
            _announce(run, recipe_name, recipe.digest())
        try:
            with stop_requests() as stop:
                asked = train(run, stop)
        except (WriteError, ImageError) as error:
            raise _with_way_on(error, arguments) from error
        if ranks.is_first and asked:
            print(
                f"\nStopped after step {run.step} of {run.total_steps}; all is saved. To go on:\n  {_resuming(arguments)}"
            )
        elif ranks.is_first:
            try:
                _finish(run, recipe_name, recipe.digest())
                if command.settings.data is None and command.benchmark:
                    _benchmark(run)
            except (WriteError, ImageError) as error:
                raise _with_way_on(error, arguments) from error
            except KeyboardInterrupt:
                _say(f"\nStopped after the last step; all steps are saved. To go on:\n  {_resuming(arguments)}")
                return 128 + signal.SIGINT
    return 128 + asked if asked else 0


def _inputs(command: Command) -> dict[str, str | None]:
    """The flags that may name files or folders, and their values."""
    names = ("data", *FILE_FIELDS, "perlin_textures")
    return {"recipe": command.recipe, **{name.replace("_", "-"): getattr(command.settings, name) for name in names}}


def _is_finished(command: Command, folder: Path) -> bool:
    if command.resume and output.is_finished(folder):
        print(f"The run in {folder} is finished; nothing to do.")
        if changes := _changes(folder, _licensed(command.settings)):
            print(f"It was made with other settings: {changes}. For these, type --overwrite or name another --output.")
        return True
    return False


def _changes(folder: Path, recipe: Recipe) -> str:
    """What a finished run was made with, and what is given now; empty where nothing differs, or nothing can be told."""
    try:
        if json.loads((folder / RECORD).read_bytes())["recipe"]["sha256"] == recipe.digest():
            return ""
        before, now = load_recipe(str(folder / output.RECIPE)).identity(), recipe.identity()
    except (InputError, OSError, ValueError, LookupError, TypeError, RecursionError):
        return ""
    # Files go by their content, which the folder does not tell; `auto` is another word there.
    fields = [name for name in now if name not in (*FILE_FIELDS, "perlin_textures")]
    fields = [name for name in fields if before.get(name) != now[name] and now[name] != "auto"]
    return "; ".join(f"{name} {before.get(name)}, not {now[name]}" for name in fields)


def _device(name: str) -> str:
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError(
            "--device cuda: torch finds no CUDA device here. Type --device cpu, or see https://pytorch.org for a CUDA build."
        )
    # Equal seeds give equal weights: only kernels that always add up in the same order.
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    return "cuda" if name == "auto" and torch.cuda.is_available() else name.replace("auto", "cpu")


def _with_data(recipe: Recipe, folder: Path) -> Recipe:
    """The quickstart's toy factory, drawn once into the output folder, where no data is named."""
    if recipe.data is not None:
        return recipe
    toy = folder / "toy_factory"
    if not toy.is_dir():
        print(f"Drawing the toy factory into {toy} ...")
        half = toy.with_suffix(".half")  # a run that is stopped here leaves no factory that looks whole
        shutil.rmtree(half, ignore_errors=True)
        try:
            with writing(toy):
                make_toy_factory(half, seed=recipe.seed).rename(toy)
        except WriteError:
            shutil.rmtree(half, ignore_errors=True)
            raise
    return _licensed(recipe).replace(data=str(toy))


def _licensed(recipe: Recipe) -> Recipe:
    """The recipe with the licence of the toy factory, whose images are tabzoo's own, where no data and no licence is named."""
    own = recipe.data is None and recipe.license == Recipe.license
    return recipe.replace(license="apache-2.0") if own else recipe


def _announce(run: Run, recipe_name: str, recipe_digest: str) -> None:
    classes = len(run.samples.classes)
    held = f" and {len(run.held_out)} held out" if run.held_out else ""
    print(f"Recipe {recipe_name}, sha256 {recipe_digest[:12]}:")
    values = yaml.safe_load(run.recipe.to_yaml()).items()
    settings = ", ".join(f"{name} {value}" for name, value in values)
    print(textwrap.fill(settings, 118, initial_indent="  ", subsequent_indent="  "))
    print(
        f"{len(run.pairs)} images of {classes} classes to train on{held}; {run.recipe.epochs} epochs of "
        f"{run.steps_per_epoch} steps of {run.batch_size} normal images and as many anomalies, on {run.device}"
        f"{f', in {run.ranks.size} processes' if run.ranks.size > 1 else ''}."
    )


def _finish(run: Run, recipe_name: str, recipe_digest: str) -> None:
    rows, validation = read_rows(run.folder / output.METRICS), read_rows(run.folder / output.VALIDATION)
    _draw(run, rows, validation)
    last = (validation or rows or [{}])[-1]
    of_what = " (held out)" if validation else ""
    metrics = {f"{key}{of_what}": last[key] for key in ("loss", "accuracy_normal", "accuracy_abnormal") if key in last}
    counts = run.samples.class_ids
    training = {
        "images": len(run.samples),
        "held_out": len(run.held_out) if run.held_out else 0,
        "classes": {name: int((counts == index).sum()) for index, name in enumerate(run.samples.classes)},
        "syntheses": syntheses(run.recipe),
        "samples_sha256": run.samples_digest(),
        "epochs": run.recipe.epochs,
        "steps": run.total_steps,
    }
    output.write_results(
        *(run.folder, run.backbone, run.recipe, run.text),
        recipe_name=recipe_name,
        recipe_digest=recipe_digest,
        training=training,
        hashes=run.hashes,
        metrics=metrics,
    )
    _report(run, rows, metrics)


def _draw(run: Run, rows: Sequence[dict[str, float]], validation: Sequence[dict[str, float]]) -> None:
    words = list(run.text.words.values())
    seed, ids = run.recipe.seed, _of_each_class(run.pairs.class_ids, 64)
    shown = ids[torch.linspace(0, len(ids) - 1, min(12, len(ids))).long()]
    folder = run.folder / "figures"
    figures.draw_samples(folder / "samples.png", run.pairs.raw(seed, 0, shown), words)
    figures.draw_curves(folder / "curves.png", rows, validation)
    pairs = run.pairs(seed, 0, ids)
    figures.draw_similarity(folder / "similarity.png", run.similarities(pairs), pairs.classes.cpu(), words)


def _of_each_class(class_ids: torch.Tensor, total: int) -> torch.Tensor:
    """About `total` images, evenly of all classes, in the order of the classes."""
    each = max(1, total // len(class_ids.unique()))
    return torch.cat([(class_ids == index).nonzero().flatten()[:each] for index in class_ids.unique()])


def _report(run: Run, rows: Sequence[dict[str, float]], metrics: dict[str, float]) -> None:
    if rows:
        print(
            f"Loss {rows[0]['loss']:.3f} at step {rows[0]['step']}, {rows[-1]['loss']:.3f} at step {rows[-1]['step']}."
        )
    chance = 1 / (len(run.samples.classes) * (2 if run.recipe.objective == "joint" else 1))
    shown = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in metrics.items())
    print(f"At the end: {shown}. Chance accuracy is {chance:.3f}.")
    print(
        f"Made in {run.folder}: model.safetensors, config.json, tabzoo.json, recipe.yaml, README.md, figures/ and more."
    )
    print(f"Licence of the weights: {run.recipe.license} (set by --license). To load them:")
    print("  import timm")
    print(f'  backbone = timm.create_model("local-dir:{run.folder}", pretrained=True, features_only=True)')
    if run.text.text_pretrained == "untrained":
        print("The text tower was untrained: this shows the machinery, not a usable backbone.")


def _benchmark(run: Run) -> None:
    """The quickstart's last step: random weights against the trained ones, on the toy factory's test split."""
    from tabzoo.benchmark.options import Options
    from tabzoo.benchmark.run import run as benchmark

    recipe, folder = run.recipe, run.folder / "benchmark"
    print(f"\nTesting random weights against the trained ones with PaDiM on {recipe.data} ...")
    options = Options(
        backbone=["random", str(run.folder)],
        method=["padim"],
        data=str(recipe.data),
        output=folder,
        seeds=[recipe.seed],
        resize=recipe.resize,
        crop=recipe.crop,
        white_level=recipe.white_level,
        device=run.device.type,
        cache=recipe.cache,
        cache_dir=recipe.cache_dir,
        workers=recipe.workers,
    )
    print(benchmark(options))
    print(f"Anomaly maps beside their images: {folder / 'maps'}")


if __name__ == "__main__":
    sys.exit(main())

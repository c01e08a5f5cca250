"""Mistakes that the tests must notice: each is made in a copy of the project, and the named tests have to fail.

python tests/mutants.py [--only NAME ...] [--list]

Run by hand, from an environment with `pip install -e ".[test]"`; some minutes. A mistake that no test notices is reported as
a survivor, and the exit code is then 1. `tests/test_mutants.py`, which is fast, sees that the list fits the code.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("tabzoo", "tests", "training", "hubconf.py", "pyproject.toml", "README.md")
ONLY_PINNED = ("tests/training/test_golden_trace.py", "tests/training/test_digests.py")
"""Tests of pinned values: they notice nearly everything, and say little. A few mistakes at most may be left to them."""


class Mutant(NamedTuple):
    """One mistake.

    Attributes:
        name: What the mistake is.
        file: Where it is made, from the project's root.
        old: Text that occurs exactly once in the file.
        new: What takes its place.
        tests: Tests that must fail then, separated by blanks; the fastest that do.
    """

    name: str
    file: str
    old: str
    new: str
    tests: str


MUTANTS = [
    Mutant(
        name="abnormal_branch_trains_on_normal_images",
        file="tabzoo/training/run.py",
        old="zip((part.normal, part.abnormal), BRANCHES",
        new="zip((part.normal, part.normal), BRANCHES",
        tests="tests/training/test_step.py",
    ),
    Mutant(
        name="sgd_is_nesterov",
        file="tabzoo/training/run.py",
        old='name = "momentum" if recipe.optimizer == "sgd" else recipe.optimizer',
        new="name = recipe.optimizer",
        tests="tests/training/test_step.py",
    ),
    Mutant(
        name="images_per_second_is_inflated",
        file="tabzoo/training/run.py",
        old='"images_per_second": 2 * self.batch_size',
        new='"images_per_second": 7 * self.batch_size',
        tests="tests/training/test_step.py::test_images_per_second_counts_both_branches",
    ),
    Mutant(
        name="gradients_of_past_steps_stay",
        file="tabzoo/training/run.py",
        old="        self.optimizer.zero_grad(set_to_none=True)\n",
        new="",
        tests="tests/training/test_step.py",
    ),
    Mutant(
        name="learning_rate_stays",
        file="tabzoo/training/run.py",
        old="        self.scheduler.step()\n",
        new="",
        tests="tests/training/test_step.py",
    ),
    Mutant(
        name="parts_of_a_batch_weigh_alike",
        file="tabzoo/training/run.py",
        old="share = len(part.classes) / self.batch_size",
        new="share = 1 / len(parts)",
        tests="tests/training/test_step.py",
    ),
    Mutant(
        name="micro_batches_are_too_large",
        file="tabzoo/training/run.py",
        old="_parts(pairs, -(-size // (self.recipe.micro_batch or size)))",
        new="_parts(pairs, size // (self.recipe.micro_batch or size))",
        tests="tests/training/test_step.py",
    ),
    Mutant(
        name="logged_accuracies_are_swapped",
        file="tabzoo/training/run.py",
        old="[results[0], results[2], results[1], results[3]]",
        new="[results[0], results[2], results[3], results[1]]",
        tests="tests/training/test_step.py",
    ),
    Mutant(
        name="the_next_learning_rate_is_logged",
        file="tabzoo/training/run.py",
        old='        self._rate = self.optimizer.param_groups[0]["lr"]\n        self.scheduler.step()\n',
        new='        self.scheduler.step()\n        self._rate = self.optimizer.param_groups[0]["lr"]\n',
        tests="tests/training/test_step.py",
    ),
    Mutant(
        name="no_weight_decay",
        file="tabzoo/training/run.py",
        old="        weight_decay=recipe.weight_decay,\n",
        new="        weight_decay=0.0,\n",
        tests="tests/training/test_step.py",
    ),
    Mutant(
        name="validation_in_training_mode",
        file="tabzoo/training/run.py",
        old="        self.aligner.eval()\n        total = ",
        new="        total = ",
        tests="tests/training/test_validation.py",
    ),
    Mutant(
        name="validation_counts_batches_alike",
        file="tabzoo/training/run.py",
        old="total += len(ids) * torch.stack",
        new="total += self.batch_size * torch.stack",
        tests="tests/training/test_validation.py",
    ),
    Mutant(
        name="resumed_without_momentum",
        file="tabzoo/training/run.py",
        old='{**self.optimizer.state_dict(), "state": state["optimizer"]}',
        new='{**self.optimizer.state_dict(), "state": {}}',
        tests="tests/training/test_pretrain.py::test_a_stopped_run_goes_on_to_the_same_weights",
    ),
    Mutant(
        name="resumed_dropout_draws_anew",
        file="tabzoo/training/run.py",
        old="        torch.manual_seed((self.recipe.seed * 1_000_003 + self.step) * self.ranks.size + self.ranks.rank)\n",
        new="",
        tests="tests/training/test_pretrain.py::test_a_stopped_run_goes_on_to_the_same_weights",
    ),
    Mutant(
        name="resumed_on_other_images",
        file="tabzoo/training/run.py",
        old='if state["samples"] != self.samples_digest():',
        new='if len(state["samples"]) != len(self.samples_digest()):',
        tests="tests/training/test_pretrain.py::test_resume_with_another_recipe_or_other_images_is_refused",
    ),
    Mutant(
        name="rows_after_the_checkpoint_stay",
        file="tabzoo/training/run.py",
        old="            cut_back(self.folder / name, self.step)",
        new="            pass",
        tests="tests/training/test_pretrain.py::test_killed_at_any_moment_it_goes_on_to_the_same_weights",
    ),
    Mutant(
        name="processes_average_a_mean_of_shares",
        file="tabzoo/training/run.py",
        old="weight = self.aligner.objective.branch_weight * share * self.ranks.size",
        new="weight = self.aligner.objective.branch_weight * share",
        tests="tests/training/test_ranks.py::test_two_processes_train_on_the_same_pairs_to_the_same_weights",
    ),
    Mutant(
        name="both_branches_take_normal_texts",
        file="tabzoo/training/objective.py",
        old='(self.normal if branch == "normal" else self.abnormal), classes',
        new="self.normal, classes",
        tests="tests/training/test_objective.py tests/training/test_step.py",
    ),
    Mutant(
        name="joint_targets_are_the_normal_texts",
        file="tabzoo/training/objective.py",
        old='classes if branch == "normal" else classes + len(self.normal)',
        new="classes",
        tests="tests/training/test_objective.py",
    ),
    Mutant(
        name="embeddings_are_not_normalised",
        file="tabzoo/training/objective.py",
        old="F.normalize(embeddings.float(), dim=-1)",
        new="embeddings.float()",
        tests="tests/training/test_objective.py",
    ),
    Mutant(
        name="the_sum_of_losses_is_their_mean",
        file="tabzoo/training/objective.py",
        old='0.5 if reduction == "mean" else 1.0',
        new="0.5",
        tests="tests/training/test_objective.py",
    ),
    Mutant(
        name="the_temperature_is_never_learned",
        file="tabzoo/training/objective.py",
        old="requires_grad=learn_temperature)",
        new="requires_grad=False)",
        tests="tests/training/test_objective.py",
    ),
    Mutant(
        name="one_residual_head_for_both_branches",
        file="tabzoo/training/objective.py",
        old="[_ResidualHead(width, text_width) for _ in BRANCHES]",
        new="[_ResidualHead(width, text_width)] * 2",
        tests="tests/training/test_objective.py::test_heads",
    ),
    Mutant(
        name="frozen_statistics_move",
        file="tabzoo/training/aligner.py",
        old="                    module.eval()",
        new="                    module.train(mode)",
        tests="tests/training/test_validation.py",
    ),
    Mutant(
        name="corner_in_place_of_the_centre",
        file="tabzoo/training/pairs.py",
        old="start = (squares.shape[1] - self.crop) // 2",
        new="start = 0",
        tests="tests/training/test_pairs.py",
    ),
    Mutant(
        name="the_mean_is_added",
        file="tabzoo/training/pairs.py",
        old="1 / (255 * std), -mean / std",
        new="1 / (255 * std), mean / std",
        tests="tests/training/test_pairs.py",
    ),
    Mutant(
        name="anomalies_of_the_first_epoch_for_ever",
        file="tabzoo/training/pairs.py",
        old="drawn = self.synthesis.draw(seed, epoch, sample_ids)",
        new="drawn = self.synthesis.draw(seed, 0, sample_ids)",
        tests="tests/training/test_pairs.py",
    ),
    Mutant(
        name="kept_texts_know_no_model",
        file="tabzoo/training/text.py",
        old="json.dumps([_KEPT_FORMAT, text_model, tag,",
        new="json.dumps([_KEPT_FORMAT, tag,",
        tests="tests/training/test_text.py",
    ),
    Mutant(
        name="kept_texts_know_no_words",
        file="tabzoo/training/text.py",
        old="tag, dict(words), prompts.digest()])",
        new="tag, list(words), prompts.digest()])",
        tests="tests/training/test_text.py",
    ),
    Mutant(
        name="sentences_are_not_normalised_before_the_mean",
        file="tabzoo/training/text.py",
        old="F.normalize(F.normalize(embeddings, dim=-1).mean(dim=0), dim=-1)",
        new="F.normalize(embeddings.mean(dim=0), dim=-1)",
        tests="tests/training/test_text.py::test_against_a_plain_reference",
    ),
    Mutant(
        name="rows_of_a_text_file_in_its_own_order",
        file="tabzoo/training/text.py",
        old="rows = [list(features.words).index(name) for name in words]",
        new="rows = list(range(len(words)))",
        tests="tests/training/test_text.py",
    ),
    Mutant(
        name="texts_of_other_prompts_pass",
        file="tabzoo/training/text.py",
        old="if features.prompts_sha256 != prompts.digest():",
        new="if not features.prompts_sha256:",
        tests="tests/training/test_text.py",
    ),
    Mutant(
        name="old_gpus_have_bf16",
        file="tabzoo/compute.py",
        old="capability >= (8, 0)",
        new="capability >= (7, 0)",
        tests="tests/test_compute.py",
    ),
    Mutant(
        name="every_avx512_has_bf16",
        file="tabzoo/compute.py",
        old='("avx512_bf16", "amx_bf16", "bf16")',
        new='("avx512_f", "amx_bf16", "bf16")',
        tests="tests/test_compute.py",
    ),
    Mutant(
        name="a_resumed_run_changes_its_amp",
        file="tabzoo/training/setup.py",
        old="        kept: Amp = begun\n",
        new="        kept: Amp = choice.amp\n",
        tests="tests/training/test_pretrain.py::test_a_run_keeps_its_amp_on_another_kind_of_machine",
    ),
    Mutant(
        name="the_record_has_the_digest_of_the_resolved_recipe",
        file="tabzoo/training/output.py",
        old='"sha256": recipe_digest,',
        new='"sha256": recipe.digest(),',
        tests="tests/training/test_pretrain.py::test_amp_auto_is_resolved_and_the_digest_is_of_what_was_written",
    ),
    Mutant(
        name="the_seed_is_not_in_the_digest",
        file="tabzoo/training/recipe.py",
        old='_NOT_HASHED = ("data", ',
        new='_NOT_HASHED = ("seed", "data", ',
        tests="tests/training/test_digests.py::test_every_field_that_decides_the_result_is_in_the_digest",
    ),
    Mutant(
        name="a_published_recipe_changes",
        file="tabzoo/training/recipes/resnet18.tab_industrial.authors.yaml",
        old="weight_decay: 0.0 ",
        new="weight_decay: 0.01 ",
        tests="tests/training/test_digests.py",
    ),
    Mutant(
        name="validation_epoch_is_not_logged_rightly",
        file="tabzoo/training/pretrain.py",
        old="epoch = (run.step - 1) // run.steps_per_epoch",
        new="epoch = run.step // run.steps_per_epoch",
        tests="tests/training/test_step.py",
    ),
    Mutant(
        name="figures_curves_of_the_other_branch",
        file="tabzoo/training/figures.py",
        old='[row[f"accuracy_{branch}"] for row in series]',
        new='[row["accuracy_normal"] for row in series]',
        tests="tests/training/test_figures.py",
    ),
    Mutant(
        name="the_trace_is_of_normal_images_alone",
        file="tabzoo/training/run.py",
        old="zip((part.normal, part.abnormal), BRANCHES",
        new="zip((part.normal, part.normal), BRANCHES",
        tests="tests/training/test_golden_trace.py",
    ),
    Mutant(
        name="other_draws_than_published",
        file="tabzoo/training/synthesis/draws.py",
        old="_FACTORS = (0xBF58476D1CE4E5B9,",
        new="_FACTORS = (0xBF58476D1CE4E5BB,",
        tests="tests/training/test_golden_trace.py",
    ),
    Mutant(
        name="another_order_of_images_than_published",
        file="tabzoo/training/sampling.py",
        old="_SHUFFLE, _WITHIN_CLASS, _HOLD_OUT = 101,",
        new="_SHUFFLE, _WITHIN_CLASS, _HOLD_OUT = 104,",
        tests="tests/training/test_golden_trace.py",
    ),
]


def make_copy(folder: Path) -> Path:
    """A copy of what the tests need."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", "results"))
        else:
            shutil.copy(source, folder / name)
    return folder


def run_tests(copy: Path, tests: list[str]) -> subprocess.CompletedProcess[str]:
    """Runs tests in a copy, with the copy's package."""
    environment = os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    return subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)


def check_copy(copy: Path, mutants: list[Mutant]) -> None:
    """Sees that the copy's own package is what is tested, and that the tests pass without a mistake.

    Raises:
        SystemExit: They don't, so a failure would say nothing.
    """
    command = [sys.executable, "-c", "import tabzoo; print(tabzoo.__file__)"]
    environment = os.environ | {"PYTHONPATH": str(copy)}
    found = subprocess.run(
        command, cwd=copy, env=environment, capture_output=True, text=True, check=True
    ).stdout.strip()
    if not Path(found).is_relative_to(copy):
        raise SystemExit(f"the tests would import {found}, not the copy in {copy}")
    tests = sorted({test for mutant in mutants for test in mutant.tests.split()})
    done = run_tests(copy, tests)
    if done.returncode:
        raise SystemExit(f"tests fail without any mistake:\n{done.stdout[-3000:]}{done.stderr[-1000:]}")
    print(f"unchanged: {done.stdout.strip().splitlines()[-1]}", flush=True)


def survives(copy: Path, mutant: Mutant) -> bool:
    """Makes a mistake in the copy, runs its tests, and takes it back; true if all of them passed."""
    path = copy / mutant.file
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
    start = time.monotonic()
    try:
        done = run_tests(copy, mutant.tests.split())
    finally:
        path.write_text(text, encoding="utf-8")
    if done.returncode not in (0, 1):  # 1: tests failed; the others: none ran
        raise SystemExit(f"{mutant.name}: its tests did not run:\n{done.stdout[-3000:]}{done.stderr[-1000:]}")
    failed = [line.split(" - ")[0] for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    print(f"{mutant.name}: {failed[0] if failed else 'SURVIVED'} ({time.monotonic() - start:.0f} s)", flush=True)
    return not failed


def main() -> int:
    """Makes the mistakes one after another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these mistakes")
    parser.add_argument("--list", action="store_true", help="print their names and do nothing")
    options = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if not options.only or mutant.name in options.only]
    if unknown := set(options.only or ()) - {mutant.name for mutant in chosen}:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    if options.list:
        print("\n".join(f"{mutant.name}: {mutant.tests}" for mutant in chosen))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        copy = make_copy(Path(folder).resolve())
        check_copy(copy, chosen)
        survivors = [mutant.name for mutant in chosen if survives(copy, mutant)]
    print(
        f"{len(chosen) - len(survivors)} of {len(chosen)} noticed"
        + "".join(f"\nSURVIVED: {name}" for name in survivors)
    )
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())

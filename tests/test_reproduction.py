"""The reproduction kit's scripts: the dry run from end to end, what a second start leaves alone, and what they refuse."""

import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from forked import run_script
from PIL import Image

from tabzoo.data.layouts import find_samples
from tabzoo.data.toy_wafers import make_toy_wafers
from tabzoo.scores.rows import REAL, read_rows

LAUNCH = Path(__file__).parents[1] / "training" / "launch"
METHODS = "padim rd4ad simplenet regad"
"""What the dry run of Table 2 measures; Table 4 is tried with the first, since a minute is long."""

Launch = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def launch(sketches: None) -> Launch:
    """Starts a script of the kit with some variables."""

    def start(script: str, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        return run_script([LAUNCH / script, *arguments], variables=variables)

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

    start("figures", "padim")
    figures = tmp_path / "figures"
    assert sorted(path.name for path in figures.iterdir() if path.is_dir()) == [f"figure{i}" for i in (4, 5, 6, 7)]
    pictures = ["figure1.png", "figure3.png", "figure4/similarity_matrix.png", "figure7/tsne.png"]
    pictures += [*(f"figure5/0{i}.png" for i in (1, 2, 3)), "figure6/KSDD2.png"]
    assert [name for name in pictures if not (figures / name).is_file()] == []
    assert "the names of the classes; 2 abnormal sentences of each class" in " ".join(
        (figures / "figure4" / "similarity_matrix.txt").read_text().split()
    )
    panels = " ".join((figures / "figure5" / "caption.txt").read_text().split())
    assert "Columns: image, anomaly map of random, anomaly map of resnet18.tab_mvtec" in panels

    kept = [*tmp_path.glob("*/*.jsonl"), *tmp_path.glob("weights/*/model.safetensors")]
    kept += [figures / name for name in pictures if name[6] in "1347"]
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in kept}
    assert "is finished; nothing to do" in start("2", "padim")
    assert start("figures", "padim").count("drawn already") == 4
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


def test_figures_without_data_are_left_out_by_name(launch: Launch, tmp_path: Path) -> None:
    wafers = str(make_toy_wafers(tmp_path / "toy.npz", per_class=1, classes=("normal", "Loc")))
    variables = {"OUT": str(tmp_path / "out"), "WAFERS": wafers}
    done = launch("reproduce_figures.sh", **variables)
    assert done.returncode == 0, done.stderr
    left_out = [line for line in done.stderr.splitlines() if "is left out" in line]
    assert left_out == [
        "Figure 2 is left out: MVTEC is not set",
        "Figure 3 is left out: INDUSTRIAL is not set",
        "Figure 4 is left out: MVTEC is not set",
        "Figure 5 is left out: BTAD is not set, MVTEC is not set",
        "Figure 6 is left out: KSDD2 is not set, MVTEC is not set",
        "Figure 7 is left out: MVTEC is not set",
    ]
    made = tmp_path / "out" / "figures"
    assert sorted(path.name for path in made.iterdir()) == [".figure1", "figure1.png", "figure1.svg", "figure1.txt"]
    (made / "figure1.png").unlink()
    assert "drawn already" in launch("reproduce_figures.sh", "1", **variables).stdout
    assert not (made / "figure1.png").exists()
    with_a_name = launch("reproduce_figures.sh", **variables, TAB_MVTEC="resnet18.tab_mvtec", IMAGENET="")
    assert with_a_name.returncode == 2  # before anything is drawn
    other = str(make_toy_wafers(tmp_path / "other.npz", per_class=1, classes=("normal", "Loc")))
    assert launch("reproduce_figures.sh", "1", **variables | {"WAFERS": other}).returncode == 0
    assert (made / "figure1.png").exists()  # of another file


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
        ("reproduce_figures.sh", {}, "error: nothing to draw. Type the variables of some figures, such as MVTEC=DIR"),
        ("reproduce_figures.sh 5", {"MVTEC": "."}, "error: BTAD is not set: BTAD, 01/train/ok/*.bmp. Type: BTAD=DIR"),
        ("reproduce_figures.sh", {"WAFERS": "no.npz"}, "error: WAFERS=no.npz: no such file; expected MixedWM38's"),
        ("reproduce_figures.sh", {"MVTEC": "no"}, "error: MVTEC=no: no such folder; expected MVTec AD"),
        ("reproduce_figures.sh 8", {}, "error: 8: expected figures, 1 to 7"),
        ("reproduce_figures.sh 4", {"TAB_MVTEC": "a"}, "error: TAB_MVTEC=a is not the folder of a run, with the texts"),
        ("reproduce_figures.sh", {"METHOD": "regad"}, 'error: METHOD="regad": expected padim, rd4ad or simplenet'),
        ("dry_run.sh out 3", {}, "error: 3: expected some of 2 4 figures"),
    ],
)
def test_what_is_missing_is_named(launch: Launch, script: str, variables: dict[str, str], message: str) -> None:
    done = launch(*script.split(), **variables)
    assert done.returncode == 2
    assert message in done.stderr

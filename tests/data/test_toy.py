from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tabzoo.data import toy
from tabzoo.data.toy import TOY_CLASSES, make_toy_factory
from tabzoo.errors import InputError

SMALL = {"size": 48, "train": 3, "test_good": 2, "test_defect": 4}
FLAWS = [(name, kind) for name in TOY_CLASSES for kind in toy._PRODUCTS[name][1]]


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*.png")}


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_toy_factory(tmp_path_factory.mktemp("toy") / "factory", **SMALL)


def test_tree(factory: Path) -> None:
    assert len(TOY_CLASSES) >= 6
    assert sorted(path.name for path in factory.iterdir()) == sorted(TOY_CLASSES)
    for name in TOY_CLASSES:
        kinds = toy._PRODUCTS[name][1]
        assert len(kinds) >= 2
        found = {path for path in contents(factory) if path.startswith(f"{name}/")}
        expected = {f"{name}/train/good/{i:03d}.png" for i in range(3)} | {
            f"{name}/test/good/{i:03d}.png" for i in (0, 1)
        }
        # 4 images over 2 kinds are 2 each, over 3 kinds 2, 1 and 1.
        for position, kind in enumerate(kinds):
            for i in range({2: [2, 2], 3: [2, 1, 1]}[len(kinds)][position]):
                expected |= {f"{name}/test/{kind}/{i:03d}.png", f"{name}/ground_truth/{kind}/{i:03d}_mask.png"}
        assert found == expected


def test_images_and_masks_are_well_formed(factory: Path) -> None:
    for path in factory.rglob("*.png"):
        with Image.open(path) as image:
            assert image.size == (48, 48)
            assert image.mode == ("L" if path.stem.endswith("_mask") else "RGB")
            if path.stem.endswith("_mask"):
                assert sorted(np.unique(np.asarray(image))) == [0, 255]


def test_files_hold_the_images_and_masks(factory: Path) -> None:
    for name, kind in FLAWS:
        made = toy._render(name, f"test/{kind}", 0, seed=0, size=48)
        with Image.open(factory / name / "test" / kind / "000.png") as image:
            assert np.array_equal(image, made.image)
        with Image.open(factory / name / "ground_truth" / kind / "000_mask.png") as mask:
            assert np.array_equal(np.asarray(mask) > 0, made.mask)


def test_no_two_images_are_alike(factory: Path) -> None:
    images = [data for path, data in contents(factory).items() if "/ground_truth/" not in path]
    assert len(images) == len(set(images)) == len(TOY_CLASSES) * (3 + 2 + 4)


def test_equal_arguments_give_equal_files(factory: Path, tmp_path: Path) -> None:
    assert contents(make_toy_factory(tmp_path, **SMALL)) == contents(factory)


def test_seeding_is_the_same_in_every_process() -> None:
    # Python's own hash() of a name is salted anew in each process.
    assert toy._generator(0, "capsule", "test/crack", 7).integers(2**32) == 500047579


def test_an_image_does_not_depend_on_what_else_is_made(factory: Path, tmp_path: Path) -> None:
    more = make_toy_factory(tmp_path, size=48, train=5, test_good=3, test_defect=7, classes=["hex_nut", "wood_grain"])
    before, after = contents(factory), contents(more)
    shared = [path for path in before if path.startswith(("hex_nut/", "wood_grain/"))]
    assert len(shared) == 2 * (3 + 2 + 4 + 4)
    assert all(before[path] == after[path] for path in shared)


def test_seeds_differ(factory: Path, tmp_path: Path) -> None:
    other = contents(make_toy_factory(tmp_path, seed=1, **SMALL))
    assert not {path for path, data in contents(factory).items() if other[path] == data}


@pytest.mark.parametrize(("name", "kind"), FLAWS)
@pytest.mark.parametrize("size", [32, 96])
def test_a_defect_is_local_visible_and_inside_its_mask(name: str, kind: str, size: int) -> None:
    for index in range(6):
        made = toy._render(name, f"test/{kind}", index, seed=3, size=size)
        difference = np.abs(made.image.astype(int) - made.good).max(axis=2)
        assert (difference[~made.mask] == 0).all()
        assert (difference[made.mask] > 0).all()
        assert 0.002 < made.mask.mean() < 0.2
        # Visible against the sensor noise, whose deviation is 4 grey levels at most.
        assert difference[made.mask].mean() > 20


def test_a_pixel_is_in_the_mask_when_one_channel_changed_by_more_than_12_levels() -> None:
    made = [toy._render(name, f"test/{kind}", 0, seed=3, size=96) for name, kind in FLAWS]
    changes = np.concatenate([np.abs(one.image.astype(int) - one.good)[one.mask] for one in made])  # [pixels, 3]
    assert changes.max(axis=1).min() == 13
    assert changes.min() == 0


def test_a_defect_that_is_hardly_visible_is_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def shares() -> list[float]:
        return [float(toy._render("wood_grain", "test/ink", i, seed=3, size=48).mask.mean()) for i in range(6)]

    limit = float(np.median(shares()))
    monkeypatch.setattr(toy, "_SMALLEST_DEFECT", limit)
    assert min(shares()) >= limit


def test_a_good_image_has_no_mask() -> None:
    made = toy._render("capsule", "test/good", 0, seed=0, size=32)
    assert not made.mask.any()
    assert (made.image == made.good).all()


def histogram(image: np.ndarray) -> np.ndarray:
    counts = [np.histogram(image[..., channel], bins=16, range=(0, 256))[0] for channel in range(3)]
    return np.sqrt(np.concatenate(counts) / image[..., 0].size)


def test_classes_can_be_distinguished() -> None:
    def histograms(split: str, count: int) -> np.ndarray:  # [classes, count, bins]
        return np.array(
            [
                [histogram(toy._render(name, split, i, seed=0, size=48).image) for i in range(count)]
                for name in TOY_CLASSES
            ]
        )

    means = histograms("train/good", 12).mean(axis=1)
    test = histograms("test/good", 8)
    nearest = np.linalg.norm(test[:, :, None] - means, axis=-1).argmin(axis=-1)  # [classes, count]
    accuracy = (nearest == np.arange(len(TOY_CLASSES))[:, None]).mean()
    assert accuracy > 0.9


@pytest.mark.parametrize("name", TOY_CLASSES)
def test_images_of_a_class_vary(name: str) -> None:
    images = [toy._render(name, "train/good", i, seed=0, size=48).image.astype(float) for i in range(5)]
    # Beyond what sensor noise alone would give.
    pairs = [np.abs(images[i] - images[j]).mean() for i in range(5) for j in range(i)]
    assert min(pairs) > 6


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"size": 31}, "size is 31; expected 32 or more"),
        ({"train": 0}, "train is 0; expected 1 or more"),
        ({"test_good": -2}, "test_good is -2"),
        ({"test_defect": 0}, "test_defect is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"classes": []}, "classes is empty"),
        ({"classes": ["hexnut"]}, "unknown toy class 'hexnut'; accepted: .* Did you mean 'hex_nut'"),
        ({"classes": ["zzz"]}, f"'zzz'; accepted: {TOY_CLASSES[0]}"),
    ],
)
def test_wrong_arguments(arguments: dict[str, object], text: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=text):
        make_toy_factory(tmp_path / "new", **arguments)
    assert not (tmp_path / "new").exists()


def test_a_root_that_is_not_empty_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    for root in (tmp_path, tmp_path / "mine.txt"):
        with pytest.raises(InputError, match="is not empty"):
            make_toy_factory(root, **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_root_may_be_a_text_and_one_class_a_bare_name(tmp_path: Path) -> None:
    root = make_toy_factory(str(tmp_path / "a" / "b"), size=32, train=1, test_good=1, test_defect=1, classes="capsule")
    assert root == tmp_path / "a" / "b"
    assert [path.name for path in root.iterdir()] == ["capsule"]

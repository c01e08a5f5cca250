"""Every layout as a generated tree with its special cases, and what is read from it."""

import os
import random
import tracemalloc
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from trees import mvtec_class, numbered, paths, table, touch

from tabzoo.data.entries import Files
from tabzoo.data.images import read_mask
from tabzoo.data.industrial import INDUSTRIAL
from tabzoo.data.layouts import LAYOUTS, find_samples
from tabzoo.errors import ImageError, InputError

INDUSTRIAL_CLASSES = [entry.name for entry in INDUSTRIAL]


def btad_class(root: Path, name: str, image: str = "bmp", mask: str = "png") -> None:
    touch(root, *numbered(f"{name}/train/ok/{{:04}}.{image}", 3), *numbered(f"{name}/test/ok/{{:04}}.{image}", 2))
    touch(root, *numbered(f"{name}/test/ko/{{:04}}.{image}", 2))
    touch(root, *numbered(f"{name}/ground_truth/ko/{{:04}}.{mask}", 2))


def visa_class(root: Path, name: str) -> None:
    touch(root, *numbered(f"{name}/Data/Images/Normal/{{:04}}.JPG", 4), f"{name}/image_anno.csv")
    touch(root, *numbered(f"{name}/Data/Images/Anomaly/{{:03}}.JPG", 2))
    touch(root, *numbered(f"{name}/Data/Masks/Anomaly/{{:03}}.png", 2))


def ksdd2(root: Path) -> None:
    for split, numbers, defective in (
        ("train", range(10000, 10006), {10001, 10004}),
        ("test", range(20000, 20004), {20003}),
    ):
        for number in numbers:
            touch(root, f"{split}/{number}.png")
            mask = Image.new("L", (23, 63))
            if number in defective:
                mask.putpixel((5, 5), 255)
            mask.save(root / split / f"{number}_GT.png")
    touch(root, "train/10001 (copy).png", "train/10001_GT (copy).png")


# ----------------------------------------------------------------------------------------------------------------- mvtec


def test_mvtec(tmp_path: Path):
    mvtec_class(tmp_path, "bottle")
    mvtec_class(tmp_path, "Zip")
    touch(tmp_path, "manifest.csv", "README.md")
    samples = find_samples(tmp_path)
    assert samples.layout == "mvtec"
    assert samples.classes == ("Zip", "bottle")
    assert samples.defects == ("good", "a crack", "broken")
    assert not samples.notes
    assert table(samples)[:9] == [
        ("Zip", "train", "good", "Zip/train/good/000.png"),
        ("Zip", "train", "good", "Zip/train/good/001.png"),
        ("Zip", "train", "good", "Zip/train/good/002.png"),
        ("Zip", "test", "good", "Zip/test/good/000.png"),
        ("Zip", "test", "good", "Zip/test/good/001.png"),
        ("Zip", "test", "a crack", "Zip/test/a crack/000.png"),
        ("Zip", "test", "a crack", "Zip/test/a crack/001.png"),
        ("Zip", "test", "broken", "Zip/test/broken/000.png"),
        ("Zip", "test", "broken", "Zip/test/broken/001.png"),
    ]
    assert samples.labels.tolist() == [0] * 5 + [1] * 4 + [0] * 5 + [1] * 4
    assert samples.mask_path(5) == tmp_path / "Zip/ground_truth/a crack/000_mask.png"
    assert samples.mask_path(0) is None
    assert samples.path(0) == tmp_path / "Zip/train/good/000.png"
    kinds = [samples.paths.dtype.kind, samples.masks.dtype.kind, samples.class_ids.dtype, samples.split.dtype]
    assert kinds == ["S", "S", np.int32, np.uint8]
    assert (samples.defect_ids.dtype, samples.labels.dtype) == (np.int32, np.uint8)


def test_mpdd_is_mvtec_by_another_name(tmp_path: Path):
    mvtec_class(tmp_path, "metal_plate")
    assert find_samples(tmp_path).layout == "mvtec"
    assert find_samples(tmp_path, layout="mpdd").layout == "mpdd"


def test_converted_visa_has_masks_without_suffix(tmp_path: Path):
    touch(tmp_path, "pcb1/train/good/0000.JPG", "pcb1/test/bad/000.JPG", "pcb1/ground_truth/bad/000.png")
    samples = find_samples(tmp_path)
    assert samples.layout == "mvtec"
    assert samples.mask_path(1) == tmp_path / "pcb1/ground_truth/bad/000.png"


def test_missing_and_surplus_masks_are_noted(tmp_path: Path):
    mvtec_class(tmp_path)
    (tmp_path / "bottle/ground_truth/broken/001_mask.png").rename(tmp_path / "bottle/ground_truth/broken/777_mask.png")
    samples = find_samples(tmp_path)
    assert sum(mask != b"" for mask in samples.masks.tolist()) == 3
    assert samples.notes == (
        "bottle/test/broken: no mask in bottle/ground_truth/broken for 1 image (001.png)",
        "bottle/ground_truth/broken: no image in bottle/test/broken for 1 mask (777_mask.png)",
    )


@pytest.mark.parametrize(
    "defect", ["by mask", "GOOD one", "goods", "missing", "nok", "nio", "not ok", "abnormal", "defect"]
)
def test_any_name_of_a_defect(defect: str, tmp_path: Path):
    touch(tmp_path, "c/train/good/0.png", f"c/test/{defect}/0.png")
    samples = find_samples(tmp_path)
    assert samples.defects == ("good", defect)
    assert samples.labels.tolist() == [0, 1]


def test_defects_without_any_masks_are_fine(tmp_path: Path):
    touch(tmp_path, "c/train/good/0.png", "c/test/bad/0.png")
    samples = find_samples(tmp_path)
    assert samples.masks.tolist() == [b"", b""]
    assert not samples.notes


def test_capital_folders_and_mixed_endings(tmp_path: Path):
    touch(
        tmp_path,
        "Nut/Train/Good/a.PNG",
        "Nut/TEST/good/b.JpEg",
        "Nut/TEST/Crack/c.Tiff",
        "Nut/Ground_Truth/crack/c_mask.BMP",
    )
    samples = find_samples(tmp_path)
    assert [row[:3] for row in table(samples)] == [
        ("Nut", "train", "good"),
        ("Nut", "test", "good"),
        ("Nut", "test", "Crack"),
    ]
    assert samples.mask_path(2) == tmp_path / "Nut/Ground_Truth/crack/c_mask.BMP"


def test_defective_training_images_are_no_normals(tmp_path: Path):
    touch(tmp_path, "c/train/good/0.png", "c/train/scratch/0.png", "c/test/good/1.png")
    samples = find_samples(tmp_path)
    assert [row[1:3] for row in table(samples)] == [("train", "good"), ("train", "scratch"), ("test", "good")]
    assert paths(samples.train_normals()) == ["c/train/good/0.png"]


def test_other_splits_are_left_out_with_a_note(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    mvtec_class(tmp_path)
    touch(tmp_path, "bottle/validation/good/0.png", "preview.png")
    samples = find_samples(tmp_path)
    assert len(samples) == 9
    left = "2 images (preview.png, bottle/validation/good/0.png)"
    note = f"{tmp_path}: left out, in folders that the layout does not use: {left}"
    assert samples.notes == (note,)
    assert note in caplog.text


# ------------------------------------------------------------------------------------------------------------------ btad


def test_btad(tmp_path: Path):
    btad_class(tmp_path, "01", "bmp", "png")
    btad_class(tmp_path, "02", "png", "png")
    btad_class(tmp_path, "03", "bmp", "bmp")
    samples = find_samples(tmp_path)
    assert samples.layout == "btad"
    assert samples.classes == ("01", "02", "03")
    assert samples.defects == ("good", "ko")
    assert len(samples) == 21
    assert len(samples.train_normals()) == 9
    assert [bytes(mask).decode() for mask in samples.masks[samples.labels == 1]] == [
        *numbered("01/ground_truth/ko/{:04}.png", 2),
        *numbered("02/ground_truth/ko/{:04}.png", 2),
        *numbered("03/ground_truth/ko/{:04}.bmp", 2),
    ]


def test_ok_and_ng(tmp_path: Path):
    touch(tmp_path, "part/train/OK/1.png", "part/test/OK/2.png", "part/test/NG/3.png")
    samples = find_samples(tmp_path)
    assert samples.layout == "btad"
    assert samples.labels.tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    "good",
    [
        *(
            "ok",
            "OKAY",
            "GOOD ",
            "normal",
            "Nominal",
            "pass",
            "defect-free",
            "defect_free",
            "non_defective",
            "no defect",
        ),
        *("i.O.", "healthy"),
    ],
)
def test_words_for_good_parts_are_one_list(good: str, tmp_path: Path):
    """Folders and manifests know the same words, and a folder with such a name is not read as a class."""
    touch(tmp_path, "part/train/good/1.png", f"part/test/{good}/2.png", "part/test/ng/3.png")
    assert find_samples(tmp_path).labels.tolist() == [0, 0, 1]
    touch(tmp_path / "all", f"part/train/{good}/1.png", f"part/test/{good}/2.png", "part/test/ng/3.png")
    assert find_samples(tmp_path / "all").labels.tolist() == [0, 0, 1]
    (tmp_path / "m.csv").write_text(f"path,class,label\n1.png,part,{good}\n2.png,part,ng\n")
    assert find_samples(tmp_path / "m.csv").labels.tolist() == [0, 1]
    touch(tmp_path / "flat", f"{good}/1.png", "other/1.png")
    with pytest.raises(InputError, match="named like a split or a label"):
        find_samples(tmp_path / "flat")


@pytest.mark.parametrize("name", ["unlabeled", "Unlabelled", "unknown", "n.a.", "-", "?", "unsorted"])
def test_folders_without_a_label_are_left_out(name: str, tmp_path: Path):
    touch(tmp_path, "part/train/good/1.png", f"part/test/{name}/2.png", "part/test/ng/3.png")
    samples = find_samples(tmp_path)
    assert paths(samples) == ["part/train/good/1.png", "part/test/ng/3.png"]
    assert f"part/test/{name}: left out, its name says neither good nor a kind of defect" in samples.notes


def test_misspelt_good_is_noted(tmp_path: Path):
    touch(tmp_path, "part/train/good/1.png", "part/test/goood/2.png", "part/test/abnormal/3.png")
    samples = find_samples(tmp_path)
    assert [note for note in samples.notes if "read as defective" in note] == [
        f"{tmp_path}: images labelled 'goood' are read as defective; labels of good images are good, ok or normal"
    ]


# --------------------------------------------------------------------------------------------- look-alikes of MVTec AD


def test_kinds_of_defects_with_folders_of_their_own(tmp_path: Path):
    touch(tmp_path, "c/train/good/day/0.png", "c/train/good/night/0.png", "c/test/good/0.png", "c/test/defect/0.png")
    touch(tmp_path, "c/test/defect/type_1/0.png", "c/ground_truth/defect/type_1/0_mask.png")
    samples = find_samples(tmp_path)
    assert [row[1:] for row in table(samples)] == [
        ("train", "good", "c/train/good/day/0.png"),
        ("train", "good", "c/train/good/night/0.png"),
        ("test", "good", "c/test/good/0.png"),
        ("test", "defect", "c/test/defect/0.png"),
        ("test", "defect/type_1", "c/test/defect/type_1/0.png"),
    ]
    assert samples.masks[-1] == b"c/ground_truth/defect/type_1/0_mask.png"


def test_mvtec_ad_2(tmp_path: Path):
    touch(tmp_path, "can/train/good/0_regular.png", "can/validation/good/1_regular.png", "can/test_private/2.png")
    touch(tmp_path, "can/test_public/good/3_regular.png", "can/test_public/bad/4_regular.png")
    touch(tmp_path, "can/test_public/ground_truth/bad/4_regular_mask.png")
    samples = find_samples(tmp_path)
    assert [row[1:3] for row in table(samples)] == [("train", "good"), ("test", "good"), ("test", "bad")]
    assert samples.masks[-1] == b"can/test_public/ground_truth/bad/4_regular_mask.png"
    assert "left out, in folders that the layout does not use: 2 images" in samples.notes[0]


def test_mvtec_loco(tmp_path: Path):
    """The masks of an image are in a folder of their own; a pixel in any of them counts."""
    touch(tmp_path, "box/train/good/0.png", "box/test/good/0.png", *numbered("box/test/logical_anomalies/{}.png", 3))
    truth = tmp_path / "box/ground_truth/logical_anomalies"
    for image, count in ((0, 1), (1, 3)):
        for part in range(count):
            (truth / str(image)).mkdir(parents=True, exist_ok=True)
            pixels = np.zeros((8, 8), np.uint8)
            pixels[part, 2] = 255
            Image.fromarray(pixels).save(truth / str(image) / f"00{part}.png")
    samples = find_samples(tmp_path)
    assert samples.masks[-3:].tolist() == [*(os.fsencode(truth.relative_to(tmp_path) / name) for name in "01"), b""]
    for row, rows in ((2, [0]), (3, [0, 1, 2])):
        mask = samples.mask_path(row)
        assert mask is not None
        assert np.argwhere(read_mask(mask)).tolist() == [[row, 2] for row in rows]
        assert read_mask(mask, size=16).sum() == 4 * len(rows)
    assert "no mask in box/ground_truth/logical_anomalies for 1 image (2.png)" in samples.notes[0]
    before = Files.listed(tmp_path, samples.masks, "mask", 8, "lanczos").folder_name
    os.utime(truth / "1" / "001.png", ns=(1, 1))  # the folder's own date and the files' sizes stay
    assert Files.listed(tmp_path, samples.masks, "mask", 8, "lanczos").folder_name != before
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(truth / "1" / "001.png")
    with pytest.raises(ImageError, match="logical_anomalies/1: contains masks of different sizes"):
        read_mask(truth / "1")


@pytest.mark.parametrize("folder", ["ground_truth", "GT", "masks", "label"])
def test_folders_of_masks_in_a_split(folder: str, tmp_path: Path):
    touch(tmp_path, "c/train/good/0.png", "c/test/bad/0.png", f"c/test/{folder}/bad/0_mask.png")
    samples = find_samples(tmp_path)
    assert samples.defects == ("good", "bad")
    assert samples.masks[-1] == f"c/test/{folder}/bad/0_mask.png".encode()


def test_dagm_is_refused_at_once(tmp_path: Path):
    """Following the hint of a message must not lead to another refusal."""
    for split in ("Train", "Test"):
        touch(tmp_path, f"Class1/{split}/1.PNG", f"Class1/{split}/2.PNG", f"Class1/{split}/Label/1_label.PNG")
    with pytest.raises(InputError) as caught:
        find_samples(tmp_path)
    assert "fits" not in str(caught.value)


def test_images_of_other_formats_are_noted(tmp_path: Path):
    touch(tmp_path, "c/train/good/0.png", "c/train/good/1.HEIC", "c/test/bad/2.heic", "c/test/bad/3.png", "c/x.txt")
    assert (
        f"{tmp_path}: left out, not a supported format: 2 .heic; convert to one of BMP, JPEG"
        in find_samples(tmp_path).notes[0]
    )


# ----------------------------------------------------------------------------------------------------------------- masks


def mask_file(path: Path, *, defect: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = Image.new("L", (8, 8))
    if defect:
        mask.putpixel((5, 5), 255)
    mask.save(path)


@pytest.mark.parametrize("mark", ["_label", "_mask", "_GT", "-mask", "_Ground_Truth"])
def test_masks_next_to_images_of_one_class(mark: str, tmp_path: Path):
    """KolektorSDD: masks are not read as images, and they say which parts are defective."""
    touch(tmp_path, *numbered("kos01/Part{}.jpg", 4), "kos01/other_label.png")
    for i in range(3):
        mask_file(tmp_path / f"kos01/Part{i}{mark}.bmp", defect=i == 1)
    samples = find_samples(tmp_path)
    assert [row[2:] for row in table(samples)] == [
        ("good", "kos01/Part0.jpg"),
        ("good", "kos01/Part2.jpg"),
        ("good", "kos01/Part3.jpg"),
        ("good", "kos01/other_label.png"),
        ("defect", "kos01/Part1.jpg"),
    ]
    assert samples.masks[-1] == f"kos01/Part1{mark}.bmp".encode()
    assert paths(samples.train_normals()) == [row[3] for row in table(samples)[:4]]
    listed = ", ".join(f"Part{i}{mark}.bmp" for i in range(3))
    note = (
        f"kos01: read as masks of the images next to them: 3 files ({listed}); without a mask, read as good: 2 images"
    )
    assert samples.notes == (f"{note} (Part3.jpg, other_label.png)",)


def test_masks_next_to_images_of_a_kind_of_defect(tmp_path: Path):
    touch(tmp_path, "c/train/good/0.png", "c/test/good/0.png", "c/test/dent/a.png", "c/test/dent/b.png")
    touch(tmp_path, "c/test/dent/a_mask.png", "c/test/dent/b_mask.png", "c/ground_truth/dent/b.png")
    samples = find_samples(tmp_path)
    assert [row[2:] for row in table(samples)[2:]] == [("dent", "c/test/dent/a.png"), ("dent", "c/test/dent/b.png")]
    assert samples.masks[2:].tolist() == [b"c/test/dent/a_mask.png", b"c/ground_truth/dent/b.png"]


def test_masks_next_to_good_images_find_defective_ones(tmp_path: Path):
    touch(tmp_path, "c/train/good/0.png", "c/train/good/1.png", "c/test/good/0.png")
    mask_file(tmp_path / "c/train/good/0_mask.png", defect=False)
    mask_file(tmp_path / "c/train/good/1_mask.png", defect=True)
    assert paths(find_samples(tmp_path).train_normals()) == ["c/train/good/0.png"]


def test_one_mask_is_of_one_image(tmp_path: Path):
    touch(tmp_path, "c/train/good/0.png", "c/test/bad/0.jpg", "c/test/bad/0.png", "c/ground_truth/bad/0_mask.png")
    with pytest.raises(InputError, match="0_mask.png: the only mask for both c/test/bad/0.jpg and 0.png; rename"):
        find_samples(tmp_path)
    touch(tmp_path, "c/ground_truth/bad/0.jpg_mask.png")
    assert find_samples(tmp_path).masks[1:].tolist() == [
        b"c/ground_truth/bad/0.jpg_mask.png",
        b"c/ground_truth/bad/0_mask.png",
    ]


def test_masks_with_the_full_name_of_their_image(tmp_path: Path):
    touch(
        tmp_path,
        "c/train/good/0.png",
        *(f"c/{part}/bad/0.{ending}" for part in ("test", "ground_truth") for ending in ("jpg", "png")),
    )
    assert find_samples(tmp_path).masks[1:].tolist() == [b"c/ground_truth/bad/0.jpg", b"c/ground_truth/bad/0.png"]


def test_two_masks_of_one_image(tmp_path: Path):
    touch(
        tmp_path,
        "c/train/good/0.png",
        "c/test/bad/0.jpg",
        *(f"c/ground_truth/bad/0_mask.{ending}" for ending in ("bmp", "png")),
    )
    with pytest.raises(
        InputError, match="c/test/bad/0.jpg: more than one mask: .*0_mask.bmp and .*0_mask.png; keep one"
    ):
        find_samples(tmp_path)


# ----------------------------------------------------------------------------------------------------------------- ksdd2


@pytest.mark.parametrize("inside", ["KSDD2", "data/KSDD2"])
def test_ksdd2(inside: str, tmp_path: Path):
    ksdd2(tmp_path / inside)
    samples = find_samples(tmp_path / inside)
    assert samples.layout == "ksdd2"
    assert samples.classes == ("KSDD2",)
    assert len(samples) == 10
    assert paths(samples.train_normals()) == [f"train/{number}.png" for number in (10000, 10002, 10003, 10005)]
    defective = [(row[1], row[3]) for row in table(samples) if row[2] == "defect"]
    assert defective == [("train", "train/10001.png"), ("train", "train/10004.png"), ("test", "test/20003.png")]
    assert [bytes(mask) for mask in samples.masks[samples.labels == 1]] == [
        b"train/10001_GT.png",
        b"train/10004_GT.png",
        b"test/20003_GT.png",
    ]
    assert not samples.masks[samples.labels == 0].any()  # an empty mask tells no more than "good" does
    strays = "2 files (10001 (copy).png, 10001_GT (copy).png)"
    assert samples.notes == (f"train: left out, not NNNNN.png with its NNNNN_GT.png: {strays}",)


def test_ksdd2_image_without_a_readable_mask_has_no_label(tmp_path: Path):
    ksdd2(tmp_path)
    (tmp_path / "train/10000_GT.png").write_bytes(b"torn")
    (tmp_path / "train/10002_GT.png").unlink()
    samples = find_samples(tmp_path)
    assert len(samples) == 8
    assert any("train/10000.png: left out, its label is unknown" in note for note in samples.notes)
    assert any("10002.png" in note for note in samples.notes)


def test_ksdd2_without_any_readable_mask(tmp_path: Path):
    touch(tmp_path, "train/10000.png", "train/10000_GT.png")
    with pytest.raises(
        InputError, match=r"no usable images under .*: train/10000\.png: left out, its label is unknown: .*0 bytes"
    ):
        find_samples(tmp_path)


# ------------------------------------------------------------------------------------------------------------------ visa


def visa_table(root: Path, rows: Iterable[str]) -> None:
    (root / "split_csv").mkdir()
    (root / "split_csv/1cls.csv").write_text("object,split,label,image,mask\n" + "".join(f"{row}\n" for row in rows))
    (root / "split_csv/2cls_fewshot.csv").write_text("nonsense")


def visa_rows(name: str) -> list[str]:
    normal = [f"{name},{'test' if i == 3 else 'train'},normal,{name}/Data/Images/Normal/{i:04}.JPG," for i in range(4)]
    image, mask = f"{name}/Data/Images/Anomaly/{{:03}}.JPG", f"{name}/Data/Masks/Anomaly/{{:03}}.png"
    return normal + [f"{name},test,anomaly,{image.format(i)},{mask.format(i)}" for i in range(2)]


def test_visa(tmp_path: Path):
    for name in ("candle", "pcb1"):
        visa_class(tmp_path, name)
    visa_table(tmp_path, [*visa_rows("candle"), *visa_rows("pcb1"), *visa_rows("cashew")])
    samples = find_samples(tmp_path)
    assert samples.layout == "visa"
    assert not samples.notes  # A class that was not downloaded is not a mistake.
    assert samples.classes == ("candle", "pcb1")
    assert [row[1:3] for row in table(samples)[:6]] == [("train", "good")] * 3 + [("test", "good")] + [
        ("test", "bad")
    ] * 2
    assert samples.mask_path(4) == tmp_path / "candle/Data/Masks/Anomaly/000.png"
    one = find_samples(tmp_path / "candle")
    assert (one.layout, one.classes) == ("visa", ("candle",))
    assert one.split.tolist() == samples.split[:6].tolist()


def test_visa_without_its_table(tmp_path: Path):
    visa_class(tmp_path, "candle")
    samples = find_samples(tmp_path)
    assert [row[1:3] for row in table(samples)] == [("train", "good")] * 4 + [("test", "bad")] * 2
    assert samples.notes == (f"{tmp_path}: no split_csv/1cls.csv: all normal images are read as train, none as test",)


def test_visa_files_that_the_table_does_not_know(tmp_path: Path):
    visa_class(tmp_path, "candle")
    visa_table(tmp_path, [*visa_rows("candle")[1:], "candle,train,normal,candle/Data/Images/Normal/0009.JPG,"])
    samples = find_samples(tmp_path)
    assert len(samples) == 5
    assert "left out, not in" in samples.notes[0]
    assert "0000.JPG" in samples.notes[0]
    assert "but missing: 1 image (candle/Data/Images/Normal/0009.JPG)" in samples.notes[1]


def test_visa_with_a_strange_table(tmp_path: Path):
    visa_class(tmp_path, "candle")
    (tmp_path / "1cls.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match=r"1cls\.csv, line 1: no field 'image'; expected image, split; got a, b"):
        find_samples(tmp_path)


# ------------------------------------------------------------------------------------------------- industrial and folder


def test_industrial(tmp_path: Path):
    for name in INDUSTRIAL_CLASSES:
        touch(tmp_path, f"{name}/001.png", f"{name}/002.png")
    samples = find_samples(tmp_path)
    assert samples.layout == "industrial"
    assert samples.classes == tuple(sorted(INDUSTRIAL_CLASSES))
    assert len(INDUSTRIAL_CLASSES) == 30
    assert len(samples.train_normals()) == 60


def test_industrial_asked_for_with_a_typo(tmp_path: Path):
    touch(tmp_path, "Washer/1.png", "Metall Tube/1.png")
    assert find_samples(tmp_path).layout == "folder"
    with pytest.raises(
        InputError, match=r"Metall Tube: not a class of the Industrial dataset; .*\. Did you mean 'Metal Tube'\?"
    ):
        find_samples(tmp_path, layout="industrial")


def test_plain_folders(tmp_path: Path):
    touch(
        tmp_path, "screws/a.jpg", "screws/b.bmp", "Nuts/z.webp", "screws/Thumbs.db", "screws/.hidden.png", ".git/x.png"
    )
    touch(tmp_path, "__MACOSX/screws/._a.jpg", "@eaDir/a.jpg", "empty/readme.txt", "$RECYCLE.BIN/a.png")
    samples = find_samples(tmp_path)
    assert samples.layout == "folder"
    assert samples.classes == ("Nuts", "screws")
    assert paths(samples) == ["Nuts/z.webp", "screws/a.jpg", "screws/b.bmp"]
    assert not samples.notes
    assert samples.labels.sum() == samples.split.sum() == 0


def test_class_folders_of_several_styles_need_the_flag(tmp_path: Path):
    mvtec_class(tmp_path, "bottle")
    btad_class(tmp_path, "01")
    touch(tmp_path, "plain/1.png")
    with pytest.raises(InputError, match="more than one way") as caught:
        find_samples(tmp_path)
    for way in (
        "--layout btad gives 1 class (01)",
        "--layout mvtec gives 2 classes (01, bottle)",
        "--layout folder gives 3 classes",
    ):
        assert way in str(caught.value)
    samples = find_samples(tmp_path, layout="folder")
    assert samples.classes == ("01", "bottle", "plain")
    assert len(samples) == 17
    assert find_samples(tmp_path, layout="mvtec").classes == ("01", "bottle")


def test_one_class_with_images_directly_in_it(tmp_path: Path):
    touch(tmp_path, "gear wheel/2.png", "gear wheel/10.png")
    samples = find_samples(tmp_path / "gear wheel")
    assert (samples.layout, samples.classes) == ("folder", ("gear wheel",))
    assert paths(samples) == ["10.png", "2.png"]


def test_one_class_by_itself(tmp_path: Path):
    mvtec_class(tmp_path)
    samples = find_samples(tmp_path / "bottle")
    assert (samples.layout, samples.classes, len(samples)) == ("mvtec", ("bottle",), 9)
    inner = find_samples(tmp_path / "bottle/train/good")
    assert (inner.layout, inner.classes, len(inner)) == ("folder", ("bottle",), 3)


def test_relative_path_outlives_a_change_of_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    touch(tmp_path, "a/1.png")
    monkeypatch.chdir(tmp_path / "a")
    samples = find_samples(".")
    monkeypatch.chdir(tmp_path)
    assert samples.classes == ("a",)
    assert samples.path(0).is_file()


@pytest.mark.parametrize("name", ["good", "train", "defects", "masks"])
def test_label_folders_are_not_classes(name: str, tmp_path: Path):
    touch(tmp_path, f"{name}/1.png", "other/1.png")
    with pytest.raises(InputError) as caught:
        find_samples(tmp_path)
    for part in (f"{tmp_path / name}: 1 image directly", "NAME/train/good", "manifest", "--layout folder"):
        assert part in str(caught.value)
    assert find_samples(tmp_path, layout="folder").classes == tuple(sorted([name, "other"]))


def test_images_next_to_class_folders_are_ambiguous(tmp_path: Path):
    touch(tmp_path, "1.png", "2.png", "a/1.png", "b/1.png")
    with pytest.raises(
        InputError,
        match=r"2 images directly in it \(1\.png, \.\.\.\) and more in folders: either one class or 2 classes",
    ):
        find_samples(tmp_path)
    samples = find_samples(tmp_path, layout="folder")
    assert samples.classes == ("a", "b")
    assert "2 images (1.png, 2.png)" in samples.notes[0]


# ---------------------------------------------------------------------------------------------------------------- errors


def test_missing_folder_names_a_near_one(tmp_path: Path):
    (tmp_path / "factory").mkdir()
    with pytest.raises(InputError, match=r"no such folder: .*factry; expected .*\. Did you mean 'factory'\?"):
        find_samples(tmp_path / "factry")
    with pytest.raises(InputError, match="no such folder: /nonexistent/at/all; expected"):
        find_samples("/nonexistent/at/all")


def test_no_images(tmp_path: Path):
    touch(tmp_path, "a/x.npy", "a/y.npy", "b/notes.txt", "LICENSE")
    with pytest.raises(InputError) as caught:
        find_samples(tmp_path)
    assert str(caught.value) == (
        f"no images under {tmp_path}: expected CLASS/train/good/*.png (MVTec AD) or CLASS/*.png (plain); got 0 files "
        f"with a known image ending, 2 .npy, 1 (no ending), 1 .txt. See `tabzoo data check {tmp_path}`."
    )


def test_only_defective_images(tmp_path: Path):
    """A class without a folder whose name says good: what is there, and where good images go."""
    touch(tmp_path / "data" / "nut", "test/hole/0.png", "test/hole/1.png")
    see = f"See `tabzoo data check {tmp_path / 'data'}`."
    for root, shown in ((tmp_path / "data", "nut/"), (tmp_path / "data" / "nut", "")):
        with pytest.raises(InputError) as caught:
            find_samples(root)
        assert str(caught.value) == (
            f"no good images under {root}: found 2 images in {shown}test/hole, and no folder whose name says good, such as "
            f"good, ok or normal. Put images of good parts into {tmp_path / 'data' / 'nut' / 'train' / 'good'}. "
            f"{see if shown else see.replace('data`', 'data/nut`')}"
        )
    touch(tmp_path / "parts", "train/bolt/0.png", "train/nut/0.png")
    with pytest.raises(InputError, match="parts/train is a data set: use that folder"):
        find_samples(tmp_path / "parts")


def test_one_folder_too_high(tmp_path: Path):
    mvtec_class(tmp_path / "archive")
    with pytest.raises(InputError, match=f"{tmp_path / 'archive'} is a data set: use that folder"):
        find_samples(tmp_path)


def test_layout_that_does_not_fit_names_the_one_that_does(tmp_path: Path):
    mvtec_class(tmp_path)
    with pytest.raises(InputError, match=r"expected CLASS/train/ok/\*\.bmp \(BTAD\); got .* `--layout mvtec` fits"):
        find_samples(tmp_path, layout="btad")


def test_unknown_layout_names_the_nearest():
    with pytest.raises(InputError, match=r"unknown layout 'mvtek'; accepted: auto, mvtec.*\. Did you mean 'mvtec'\?"):
        find_samples(".", layout="mvtek")
    for layout in LAYOUTS:
        with pytest.raises(InputError, match="no such folder"):
            find_samples("/nonexistent", layout=layout)


def test_folders_that_differ_in_case_only(tmp_path: Path):
    touch(tmp_path, "a/train/good/1.png", "a/Train/good/2.png")
    if len(list((tmp_path / "a").iterdir())) == 1:
        pytest.skip("this file system does not tell cases apart")
    with pytest.raises(InputError, match="differ only in case"):
        find_samples(tmp_path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may list everything")
def test_folder_that_is_not_readable(tmp_path: Path):
    touch(tmp_path, "a/1.png", "b/1.png")
    (tmp_path / "b").chmod(0)
    with pytest.raises(InputError, match="b: can't list this folder: Permission denied"):
        find_samples(tmp_path)


# ---------------------------------------------------------------------------------------------------- links, names, order


def test_links_are_followed_and_loops_end(tmp_path: Path):
    mvtec_class(tmp_path / "store", "bottle")
    root = tmp_path / "data"
    root.mkdir()
    (root / "bottle").symlink_to(tmp_path / "store/bottle")
    (root / "again").symlink_to(tmp_path / "store/bottle")
    (tmp_path / "store/bottle/up").symlink_to(root)
    (root / "self").symlink_to(root)
    (root / "nowhere").symlink_to(tmp_path / "gone")
    samples = find_samples(root)
    assert samples.classes == ("again", "bottle")
    assert len(samples) == 18
    assert not samples.notes


def test_links_to_files(tmp_path: Path):
    touch(tmp_path, "store/1.png")
    (tmp_path / "data/c").mkdir(parents=True)
    (tmp_path / "data/c/a.png").symlink_to(tmp_path / "store/1.png")
    (tmp_path / "data/c/broken.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "data/c/loop.png").symlink_to("loop.png")
    os.mkfifo(tmp_path / "data/c/pipe.png")
    (tmp_path / "data/c/folder.png").mkdir()
    # Broken links are kept, so that reading names them in an error.
    assert paths(find_samples(tmp_path / "data")) == ["c/a.png", "c/broken.png", "c/loop.png"]


def test_names_that_are_not_unicode(tmp_path: Path):
    raw = os.fsencode(tmp_path) + b"/k\xe9/\xff1.png"
    try:
        os.makedirs(os.path.dirname(raw))
        open(raw, "wb").close()
    except OSError:
        pytest.skip("this file system takes Unicode names only")
    samples = find_samples(tmp_path)
    assert samples.paths.tolist() == [b"k\xe9/\xff1.png"]
    assert os.fsencode(samples.path(0)) == raw
    assert samples.path(0).is_file()


NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=8
).filter(lambda name: not name.startswith(".") and not name.isspace() and len(os.fsencode(name)) < 60)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    tree=st.dictionaries(NAMES, st.sets(NAMES, min_size=1, max_size=5), min_size=1, max_size=5), seed=st.integers(0, 99)
)
def test_order_and_content_do_not_depend_on_how_the_file_system_lists(
    tree: dict[str, set[str]], seed: int, tmp_path_factory: pytest.TempPathFactory
):
    """The same files in two folders, made in different orders, and the first also listed backwards."""
    files = [(name, f"{stem}.png") for name, stems in tree.items() for stem in stems]
    roots = [tmp_path_factory.mktemp("tree") for _ in range(2)]
    for root in roots:
        for name, file in files:
            touch(root, f"{name}/{file}")
        random.Random(seed).shuffle(files)
    listed, scandir = [], os.scandir
    for root in (*roots, roots[0]):
        listed.append(find_samples(root, layout="folder"))
        os.scandir = lambda path: _Backwards(scandir(path))
    os.scandir = scandir
    for samples in listed:
        assert samples.paths.tolist() == sorted(samples.paths.tolist(), key=lambda path: (path.split(b"/")[0], path))
        assert samples.classes == tuple(sorted(tree, key=os.fsencode))
        assert samples.paths.tolist() == listed[0].paths.tolist()
        assert samples.class_ids.tolist() == listed[0].class_ids.tolist()
        assert {tuple(path.split("/")) for path in paths(samples)} == set(files)


class _Backwards:
    def __init__(self, entries: "os._ScandirIterator[bytes]"):
        self._entries = list(entries)[::-1]

    def __enter__(self) -> "list[os.DirEntry[bytes]]":
        return self._entries

    def __exit__(self, *_: object) -> None:
        pass


# ------------------------------------------------------------------------------------------------------- size, real packs


def test_many_files_are_arrays_not_objects(tmp_path: Path):
    touch(tmp_path, "few/a/train/good/0.png")
    find_samples(tmp_path / "few")  # what the first call alone keeps
    for name in ("a", "b"):
        folder = tmp_path / "many" / name / "train/good"
        folder.mkdir(parents=True)
        for i in range(1_000):
            os.close(os.open(folder / f"{i:06}.png", os.O_CREAT | os.O_WRONLY))
    tracemalloc.start()
    samples = find_samples(tmp_path / "many")
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(samples) == 2_000
    assert peak / len(samples) < 250  # A million take 250 MB at most, for a moment.
    assert kept / len(samples) < 60


REAL = os.environ.get("TABZOO_TEST_DATA", "")
real_data = [
    pytest.mark.real_data,
    pytest.mark.skipif(not REAL, reason="TABZOO_TEST_DATA does not name a folder of images"),
]


class TestRealPacks:
    pytestmark = real_data

    def test_factory(self):
        samples = find_samples(Path(REAL) / "factory")
        assert samples.layout == "mvtec"
        assert (len(samples), len(samples.train_normals())) == (1485, 899)
        assert not samples.notes
        counts = {name: [0, 0, 0, 0] for name in samples.classes}
        for i, (name, split, defect, _) in enumerate(table(samples)):
            counts[name][(split == "test") + (defect != "good")] += 1
            counts[name][3] += samples.mask_path(i) is not None
        assert counts == {
            "solar_mono": [150, 40, 50, 0],
            "solar_poly": [150, 40, 50, 0],
            "pcb_layout": [160, 40, 50, 50],
            "pcb_strip": [60, 20, 40, 40],
            "metal_casting": [160, 50, 50, 0],
            "cookie": [31, 14, 32, 32],
            "alien_toy": [38, 20, 60, 0],
            "capsule": [150, 30, 0, 0],
        }

    def test_native_mvtec(self):
        samples = find_samples(Path(REAL) / "native" / "mvtec")
        assert (samples.layout, samples.classes) == ("mvtec", ("hazelnut", "transistor"))
        assert (len(samples), len(samples.train_normals()), int(samples.labels.sum())) == (120, 100, 16)
        assert all((mask != b"") == label for mask, label in zip(samples.masks.tolist(), samples.labels, strict=True))
        assert not samples.notes

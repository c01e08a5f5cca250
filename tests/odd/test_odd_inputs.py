"""Odd inputs for the commands and the Python functions, each with the right answer, thought out from the documentation."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from odd_cases import (
    GREY,
    SMALL,
    Box,
    Case,
    Result,
    Table,
    left,
    look,
    noise,
    problem,
    refused,
    row,
    spot,
    total,
    works,
)
from PIL import Image
from safetensors.torch import load_file, save_file

import tabzoo
from tabzoo import cli
from tabzoo.data.cache import open_images
from tabzoo.data.class_words import class_words
from tabzoo.data.images import read_image, read_mask
from tabzoo.data.layouts import find_samples
from tabzoo.data.toy import make_toy_factory
from tabzoo.errors import TabzooError
from tabzoo.training.prompts import load_prompts
from tabzoo.training.recipe import load_recipe

TABLE = Table()
add = TABLE.add


def same(path: Path, content: bytes) -> bool:
    return path.read_bytes() == content


def no_escape(result: Result, box: Box) -> bool:
    return "\x1b" not in result.out + result.said


# --- manifests
TABLE.group = "manifests"


def manifest(content: str | bytes, name: str = "m.csv") -> Callable[[Box], list[str]]:
    def act(box: Box) -> list[str]:
        box.images("img", 6)
        box.image("mask.png", spot())
        return look(box.text(name, content))

    return act


SIX = "".join(f"img/00{i}.png;nut\r\n" for i in range(6))
add("bom, crlf and semicolons", manifest(f"\ufeffPath;Class\r\n{SIX}"), works(total(6, nut=6)))
add("utf-16", manifest("path,class\nimg/000.png,nut\n".encode("utf-16")), refused(r"m\.csv", "utf-8"))
add(
    "a quote that is never closed",
    manifest('path,class\n"img/000.png,nut\nimg/001.png,nut\n'),
    refused(r"m\.csv", "line"),
)
add(
    "one file under two spellings",
    manifest("path,class,split\nimg/000.png,nut,train\n./img/../img/000.png,nut,test\n"),
    refused("line 3", "twice", r"img/000\.png"),
)


def absolute_too(box: Box) -> list[str]:
    box.images("img", 6)
    lines = [f"img/00{i}.png,nut,train" for i in range(6)] + [f"{box.tmp}/img/000.png,nut,test"]
    return look(box.text("m.csv", "\n".join(["path,class,split", *lines])))


def said_of_the_pair(result: Result, box: Box) -> bool:
    return result.code in (1, 2) and "000.png" in result.plain


add("one file, relative and absolute, on both sides", absolute_too, problem(check=said_of_the_pair).either(1, 2))
add(
    "a column twice",
    manifest("path,class,class\nimg/000.png,nut,bolt\n"),
    refused("class", "twice|two|more than once|double"),
)
add(
    "blank lines between and blanks around",
    manifest("path,class\n\n" + "".join(f"  img/00{i}.png ,  nut \n\n" for i in range(6))),
    works(total(6, nut=6)),
)
add(
    "jsonl with booleans",
    manifest(
        "".join(
            json.dumps(
                {"path": f"img/00{i}.png", "class": "nut", "split": "test" if i > 4 else "train", "label": i > 4}
            )
            + "\n"
            for i in range(6)
        ),
        "m.jsonl",
    ),
    works(
        lambda r, b: (
            r.json["classes"]["nut"]["train"] == {"good": 5}
            and r.json["classes"]["nut"]["test"] == {"good": 0, "anomaly": 1}
        )
    ),
)
add(
    "jsonl whose second line is a list",
    manifest('{"path": "img/000.png", "class": "nut"}\n["img/001.png", "nut"]\n', "m.jsonl"),
    refused("line 2", "object"),
)
add(
    "jsonl that is one array",
    manifest('[{"path": "img/000.png", "class": "nut"}]', "m.jsonl"),
    refused(r"m\.jsonl", "line 1", "object"),
)
add(
    "jsonl with NaN for a label",
    manifest('{"path": "img/000.png", "class": "nut", "label": NaN}\n', "m.jsonl"),
    refused("line 1", "label", "good"),
)
add(
    "a mask that is not there",
    manifest(
        "path,class,split,label,mask\n"
        + "".join(f"img/00{i}.png,nut,train,good,\n" for i in range(5))
        + "img/005.png,nut,test,bad,gone.png\n"
    ),
    problem(r"gone\.png", "no such file"),
)
add(
    "a split nobody knows",
    manifest("path,class,split\nimg/000.png,nut,holdout\n"),
    refused("line 2", "holdout", "train", "test"),
)
add(
    "a row that names a folder",
    manifest("path,class\n" + "".join(f"img/00{i}.png,nut\n" for i in range(6)) + "img,nut\n"),
    problem("unreadable", "folder"),
)

# --- MVTec-like folders
TABLE.group = "mvtec folders"


def mvtec(change: Callable[[Box, Path], Any] = lambda box, root: None, *more: str) -> Callable[[Box], list[str]]:
    def act(box: Box) -> list[str]:
        root = box.mvtec()
        change(box, root)
        return look(root, *more)

    return act


def capitals(box: Box, root: Path) -> None:
    nut = root / "nut"
    (nut / "train" / "good").rename(nut / "train" / "Good")
    for name in ("train", "test", "ground_truth"):
        (nut / name).rename(nut / name.capitalize())


add(
    "folders in capitals",
    mvtec(capitals),
    works(lambda r, b: r.json["layout"] == "mvtec" and r.json["total"] == 7 and r.json["classes"]["nut"]["masks"] == 1),
)
add("no training images", mvtec(lambda b, r: shutil.rmtree(r / "nut" / "train")), problem("small", "nut", "0 good"))
add(
    "AppleDouble files beside images",
    mvtec(lambda b, r: [b.text(f"data/nut/train/good/._00{i}.png", b"\0\5\x16\7") for i in range(3)]),
    works(total(7, nut=7)),
)
add(
    "Thumbs.db and .DS_Store",
    mvtec(
        lambda b, r: ([b.text(f"data/nut/{n}", b"x") for n in ("train/good/Thumbs.db", ".DS_Store", "test/.DS_Store")])
    ),
    works(total(7, nut=7)),
)
add(
    "a __MACOSX folder",
    mvtec(lambda b, r: b.text("data/__MACOSX/nut/train/good/._000.png", b"\0\5\x16\7")),
    works(total(7, nut=7)),
)
add(
    "one folder too high",
    lambda b: look(b.mvtec("outer/inner/nut")),
    refused("outer", "inner", "use that folder|fits"),
)
add(
    "an empty class folder",
    mvtec(lambda b, r: (r / "bolt" / "train" / "good").mkdir(parents=True)),
    works(total(7, nut=7)),
)
add(
    "a test image that was trained on",
    mvtec(lambda b, r: shutil.copy(r / "nut/train/good/000.png", r / "nut/test/good/000.png")),
    problem("duplicate", "test/good/000", "train/good/000"),
)
add(
    "a preview in the class folder",
    mvtec(lambda b, r: b.image("data/nut/preview.png")),
    works(total(7, nut=7), "left out", r"preview\.png"),
)
add(
    "a kind without a folder of masks",
    mvtec(lambda b, r: b.images("data/nut/test/dent", 2)),
    problem("mask", "dent/000", "dent/001"),
)
add(
    "black masks of good images",
    mvtec(lambda b, r: b.image("data/nut/ground_truth/good/000_mask.png", spot(0))),
    works(lambda r, b: r.json["total"] == 7 and r.json["problems"] == []),
)
add(
    "a class that is a link",
    mvtec(lambda b, r: [(r / "nut").rename(b.tmp / "elsewhere"), (r / "nut").symlink_to(b.tmp / "elsewhere")]),
    works(total(7, nut=7)),
)
add("a loop of links", mvtec(lambda b, r: (r / "nut/train/good/again").symlink_to(r)), works(total(7, nut=7)))
add(
    "kinds that differ in case",
    mvtec(
        lambda b, r: (
            b.images("data/nut/test/Scratch", 2)
            and b.image("data/nut/ground_truth/Scratch/000_mask.png", spot())
            and b.image("data/nut/ground_truth/Scratch/001_mask.png", spot())
        )
    ),
    works(lambda r, b: r.json["total"] == 9 and r.json["classes"]["nut"]["masks"] == 3, "Scratch", "scratch").either(
        0, 2
    ),
)

# --- other layouts
TABLE.group = "other layouts"


def btad(box: Box) -> Path:
    for part, count in (("train/ok", 5), ("test/ok", 1), ("test/ko", 1)):
        box.images(f"data/01/{part}", count, "bmp")
    box.image("data/01/ground_truth/ko/000.png", spot())
    return box.tmp / "data"


def ksdd2(box: Box) -> Path:
    for i in range(6):
        box.image(f"data/train/1000{i}.png")
        box.image(f"data/train/1000{i}_GT.png", spot(0 if i < 5 else 255))
    return box.tmp / "data"


def visa(box: Box, table: str | None) -> Path:
    box.images("data/candle/Data/Images/Normal", 6, "JPG")
    box.images("data/candle/Data/Images/Anomaly", 1, "JPG")
    box.image("data/candle/Data/Masks/Anomaly/000.png", spot(1))
    if table is not None:
        box.text("data/split_csv/1cls.csv", table)
    return box.tmp / "data"


VISA = "object,split,label,image,mask\n" + "".join(
    f"candle,{'test' if i == 5 else 'train'},normal,candle/Data/Images/Normal/00{i}.JPG,\n" for i in range(6)
)
LAST = "candle,test,anomaly,candle/Data/Images/Anomaly/000.JPG,candle/Data/Masks/Anomaly/000.png\n"

add(
    "plain folders",
    lambda b: look(b.images("data/nut") and b.images("data/bolt", 6) and b.tmp / "data"),
    works(total(11, bolt=6, nut=5)),
)
add(
    "images directly in the folder", lambda b: look(b.images("steel plates", 6)), works(total(6, **{"steel plates": 6}))
)
add(
    "btad",
    lambda b: look(btad(b)),
    works(
        lambda r, b: (
            r.json["layout"] == "btad"
            and r.json["classes"]["01"]["test"]["good"] == 1
            and r.json["classes"]["01"]["masks"] == 1
        )
    ),
)
add("a layout in capitals", lambda b: look(b.mvtec(), "--layout", "MVTec"), refused("MVTec", "did you mean 'mvtec'"))
add(
    "a layout that does not fit",
    lambda b: look(b.mvtec(), "--layout", "visa"),
    refused("Data/Images/Normal", "--layout mvtec"),
)
add(
    "ksdd2: masks say what is good",
    lambda b: look(ksdd2(b)),
    works(
        lambda r, b: (
            r.json["layout"] == "ksdd2"
            and [sum(t["train"].values()) for t in r.json["classes"].values()] == [6]
            and [t["train"]["good"] for t in r.json["classes"].values()] == [5]
        )
    ),
)
add(
    "ksdd2: an image without its mask",
    lambda b: look(ksdd2(b) and b.image("data/train/10009.png") and b.tmp / "data"),
    works(total(6), r"10009\.png", "left out"),
)
add(
    "visa with its table",
    lambda b: look(visa(b, VISA + LAST)),
    works(
        lambda r, b: (
            r.json["layout"] == "visa"
            and r.json["classes"]["candle"]["train"] == {"good": 5}
            and sum(r.json["classes"]["candle"]["test"].values()) == 2
            and r.json["classes"]["candle"]["masks"] == 1
        )
    ),
)
add("visa without its table", lambda b: look(visa(b, None)), refused(r"1cls\.csv").either(0, 1, 2))
add(
    "visa: a table that names a file that is gone",
    lambda b: look(visa(b, VISA + LAST + LAST.replace("000.JPG", "777.JPG"))),
    refused(r"777\.JPG").either(0, 1, 2),
)
add(
    "visa: a table with a split of its own",
    lambda b: look(visa(b, VISA.replace("test", "val") + LAST)),
    refused(r"1cls\.csv", "val").either(0, 1, 2),
)
add(
    "images beside class folders",
    lambda b: look(b.images("data/nut") and b.images("data", 1) and b.tmp / "data"),
    refused(r"000\.png|more than one way|left out").either(0, 1, 2),
)
add("a zip file for a folder", lambda b: look(b.text("data.zip", b"PK\3\4")), refused(r"data\.zip", "folder", r"\.csv"))
add(
    "the Industrial dataset in a folder that is empty",
    lambda b: [*["data", "industrial", "--root"], str((b.tmp / "empty").mkdir() or b.tmp / "empty")],
    problem("missing"),
)

# --- image files
TABLE.group = "image files"


def read(make: Callable[[Box], Path], **options: Any) -> Callable[[Box], Any]:
    return lambda box: lambda: read_image(make(box), **options)


def is_colour(*colour: int, tolerance: int = 0) -> Callable[[Result, Box], bool]:
    return lambda r, b: bool((np.abs(r.value.astype(int) - colour) <= tolerance).all())


def palette_with_transparency(box: Box) -> Path:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 200, 30])
    return box.image("p.png", image, transparency=1)


def corner() -> Image.Image:
    image = Image.new("RGB", (6, 4), GREY)
    image.putpixel((0, 0), (255, 0, 0))
    return image


def turned(value: int) -> Callable[[Box], Path]:
    exif = Image.Exif()
    exif[0x0112] = value
    return lambda box: box.image("turned.png", corner(), exif=exif)


def frames(name: str, **options: Any) -> Callable[[Box], Path]:
    more = [Image.new("RGB", (8, 8), "blue")]
    return lambda box: box.image(name, Image.new("RGB", (8, 8), "red"), save_all=True, append_images=more, **options)


def values(kind: type, *numbers: float) -> Callable[[Box], Path]:
    return lambda box: box.image("v.tiff", Image.fromarray(np.array([numbers], dtype=kind)))


add("one bit", read(lambda b: b.image("b.png", Image.new("1", (4, 4), 1))), works(is_colour(255, 255, 255)))
add(
    "grey with alpha", read(lambda b: b.image("la.png", Image.new("LA", (4, 4), (77, 0)))), works(is_colour(77, 77, 77))
)
add("palette with transparency", read(palette_with_transparency), works(is_colour(10, 200, 30)))
add(
    "cmyk jpeg",
    read(lambda b: b.image("c.jpg", Image.new("CMYK", (16, 16), (0, 255, 255, 0)), quality=95)),
    works(is_colour(255, 0, 0, tolerance=6)),
)
add(
    "exif: turned by 90 degrees",
    read(turned(6)),
    works(lambda r, b: r.value.shape == (6, 4, 3) and r.value[0, 3].tolist() == [255, 0, 0]),
)
add(
    "exif: an orientation that does not exist",
    read(turned(99)),
    works(lambda r, b: r.value.shape == (4, 6, 3) and r.value[0, 0].tolist() == [255, 0, 0]),
)
add("animated webp", read(frames("a.webp", lossless=True)), works(is_colour(255, 0, 0)))
add("a tiff of two pages", read(frames("a.tif")), works(is_colour(255, 0, 0)))
add(
    "one pixel high",
    read(lambda b: b.image("line.png", np.full((1, 500, 3), 9, np.uint8)), size=8),
    works(lambda r, b: r.value.shape == (8, 8, 3) and (r.value == 9).all()),
)
add(
    "a gif called png",
    read(lambda b: b.image("g.png", Image.new("P", (4, 4)), format="GIF")),
    refused(r"g\.png", "gif", "expected PNG"),
)
add(
    "a png cut in the middle",
    read(lambda b: b.text("cut.png", (lambda c: c[: len(c) // 2])(b.image("whole.png", noise("x", 64)).read_bytes()))),
    refused(r"cut\.png", "truncated|decoded"),
)
add(
    "floats with NaN and infinity",
    read(values(np.float32, 0, 1, float("nan"), float("inf"))),
    works(lambda r, b: r.value[0, :, 0].tolist() == [0, 255, 0, 0]),
)
add(
    "negative integers",
    read(values(np.int32, -100, 0, 100)),
    works(lambda r, b: not r.value.any()),  # 65535 is white, whatever an image holds, so 100 is black as well
)
add(
    "rubbish behind a png",
    read(lambda b: b.text("tail.png", b.image("w.png", Image.new("RGB", (4, 4), GREY)).read_bytes() + b"tail" * 9)),
    works(is_colour(*GREY)),
)

# --- masks
TABLE.group = "masks"


def mask(make: Callable[[Box], Path], **options: Any) -> Callable[[Box], Any]:
    return lambda box: lambda: read_mask(make(box), **options)


def is_spot(result: Result, box: Box) -> bool:
    return result.value.shape == (24, 24) and bool((result.value == (spot() > 0)).all())


def coloured(colour: tuple[int, ...], mode: str) -> Image.Image:
    image = Image.new(mode, (24, 24), (0, 0, 0, 255)[: len(colour)])
    image.paste(colour, (4, 4, 12, 12))
    return image


def palette_mask(box: Box) -> Path:
    image = Image.fromarray(np.where(spot() > 0, 0, 1).astype(np.uint8), mode=None).convert("L")
    palette = Image.new("P", (24, 24))
    palette.putdata(
        list(image.getdata()) if not hasattr(image, "get_flattened_data") else list(image.get_flattened_data())
    )
    palette.putpalette([255, 255, 255, 0, 0, 0])
    return box.image("p.png", palette)


def clear_but_white(box: Box) -> Path:
    pixels = np.full((24, 24, 4), 255, np.uint8)
    pixels[:, :, 3] = spot()
    return box.image("a.png", pixels)


add("red on black", mask(lambda b: b.image("r.png", coloured((255, 0, 0), "RGB"))), works(is_spot))
add("blue of level 1", mask(lambda b: b.image("r.png", coloured((0, 0, 1), "RGB"))), works(is_spot))
add("a palette with white first", mask(palette_mask), works(is_spot))
add("white where it is transparent", mask(clear_but_white), works(is_spot))
add("16 bits of level 1", mask(lambda b: b.image("s.png", (spot() > 0).astype(np.uint16))), works(is_spot))
add("one bit", mask(lambda b: b.image("o.png", Image.fromarray(spot()).convert("1"))), works(is_spot))
add(
    "a bad jpeg of faint noise",
    mask(lambda b: b.image("j.jpg", np.random.default_rng(0).integers(0, 40, (24, 24), dtype=np.uint8), quality=20)),
    works(lambda r, b: not r.value.any()),
)
add(
    "floats that are NaN",
    mask(lambda b: b.image("n.tiff", np.where(spot() > 0, 0.5, np.nan).astype(np.float32))),
    works(is_spot),
)
add("an empty file", mask(lambda b: b.text("e.png", b"")), refused(r"e\.png", "empty"))
add(
    "of another size than its image",
    mvtec(lambda b, r: b.image("data/nut/ground_truth/scratch/000_mask.png", spot(size=48))),
    problem("mask", "48x48", "24x24"),
)
add(
    "turned by exif, as its image is not",
    mvtec(
        lambda b, r: (
            b.image("data/nut/test/scratch/000.png", noise("w", 24)[:, :12])
            and b.image("data/nut/ground_truth/scratch/000_mask.png", spot()[:12])
        )
    ),
    problem("mask", "24x12", "12x24"),
)
add(
    "with another ending, in capitals",
    mvtec(
        lambda b, r: (
            [
                (r / "nut/ground_truth/scratch/000_mask.png").unlink(),
                b.image("data/nut/ground_truth/scratch/000_MASK.BMP", spot()),
            ]
        )
    ),
    works(lambda r, b: r.json["classes"]["nut"]["masks"] == 1),
)
add(
    "of no image",
    mvtec(lambda b, r: b.image("data/nut/ground_truth/scratch/777_mask.png", spot())),
    works(total(7), r"777_mask\.png", "no image"),
)
add(
    "black, of a defect",
    mvtec(lambda b, r: b.image("data/nut/ground_truth/scratch/000_mask.png", spot(0))),
    problem("mask", r"000_mask\.png", "empty"),
)

# --- flags of pretrain
TABLE.group = "pretrain flags"


def flags(*more: str, make: Callable[[Box], Any] = lambda box: None) -> Callable[[Box], list[str]]:
    def act(box: Box) -> list[str]:
        make(box)
        return box.train(*(word.replace("TMP", str(box.tmp)) for word in more))

    return act


NOTHING = left("out")
add("a negative batch", flags("--batch-size", "-4"), refused("batch.size", "-4", "at least", check=NOTHING))
add("a crop larger than the image", flags("--crop", "64"), refused("crop", "64", "resize", "40", check=NOTHING))
add("an infinite learning rate", flags("--lr", "inf"), refused("lr", "inf", check=NOTHING))
add("momentum of 1.5", flags("--momentum", "1.5"), refused("momentum", r"1\.5", check=NOTHING))
add("all images held out", flags("--val-share", "1"), refused("val.share", "1", check=NOTHING))
add("a seed below 0", flags("--seed", "-1"), refused("seed", "-1", "0", check=NOTHING))
add("an optimizer misspelt", flags("--optimizer", "adamv"), refused("adamv", "did you mean", check=NOTHING))
add("a backbone misspelt", flags("--backbone", "resnt18"), refused("resnt18", "did you mean 'resnet18", check=NOTHING))
add(
    "a text model misspelt",
    flags("--text-model", "ViT-B-61", "--text-pretrained", "untrained"),
    refused("ViT-B-61", "did you mean", check=NOTHING),
)
add(
    "negative weights of a mix",
    flags("--synthesis", "mix", "--mix-weights", "nsa", "-1", "perlin", "1"),
    refused("mix.weights", "-1", check=NOTHING),
)
add(
    "widths in the wrong order",
    flags("--nsa-width-min", "0.4", "--nsa-width-max", "0.1"),
    refused("nsa.width", r"0\.4", r"0\.1", check=NOTHING),
)
add(
    "initial weights that are not there",
    flags("--init", "TMP/gone.safetensors", "--backbone", "test_resnet"),
    refused("init", r"gone\.safetensors", check=NOTHING),
)
add(
    "a cache folder that is a file",
    flags("--cache", "disk", "--cache-dir", "TMP/file", make=lambda b: b.text("file", "x")),
    refused("file", "folder|directory", check=NOTHING),
)
add(
    "textures in an empty folder",
    flags("--synthesis", "perlin", "--perlin-textures", "TMP/none", make=lambda b: (b.tmp / "none").mkdir()),
    refused("none", "image", check=NOTHING),
)

# --- recipes
TABLE.group = "recipes"


def recipe(content: str | bytes, name: str = "mine.yaml") -> Callable[[Box], Any]:
    return lambda box: lambda: load_recipe(str(box.text(name, content)))


def setting(name: str, value: object) -> Callable[[Result, Box], bool]:
    return lambda r, b: type(getattr(r.value, name)) is type(value) and getattr(r.value, name) == value


add("a list", recipe("- lr: 1\n- epochs: 2\n"), refused(r"mine\.yaml", "list|fields|mapping"))
add("tabs for blanks", recipe("class_names:\n\tnut: hex nut\n"), refused(r"mine\.yaml", "line 2"))
add("1e-4, which YAML takes for text", recipe("lr: 1e-4\n"), works(setting("lr", 1e-4)))
add(
    "off, which YAML takes for false",
    recipe("amp: off\ncache: off\n"),
    works(lambda r, b: (r.value.amp, r.value.cache) == ("off", "off")),
)
add("a number in quotes", recipe('epochs: "10"\n'), refused("epochs", "whole number"))
add("nothing for the backbone", recipe("backbone:\n"), refused("backbone", "text|none|null"))
add("a seed in hexadecimal digits", recipe("seed: 0x10\n"), works(setting("seed", 16)))
add("two documents", recipe("lr: 0.1\n---\nlr: 0.2\n"), refused(r"mine\.yaml", "document|line"))
add("utf-16", recipe("lr: 0.1\n".encode("utf-16")), refused(r"mine\.yaml", "utf-8"))
add(
    "a folder called yaml",
    lambda b: lambda: load_recipe(str((b.tmp / "dir.yaml").mkdir() or b.tmp / "dir.yaml")),
    refused(r"dir\.yaml"),
)
add(
    "a tag that would run code",
    recipe("lr: !!python/object/apply:os.mkdir [/nonexistent/x]\n"),
    refused(r"mine\.yaml", "python|tag|constructor"),
)
add("a hyphen for the underscore", recipe("batch-size: 8\n"), refused("batch-size", "did you mean 'batch_size'"))
add("class names as a list", recipe("class_names: [nut, bolt]\n"), refused("class_names", "nut|list"))
add("infinitely many epochs", recipe("epochs: .inf\n"), refused("epochs", "inf", "whole number"))

# --- run folders
TABLE.group = "run folders"


def after_run(*more: str, change: Callable[[Box], Any] = lambda box: None) -> Callable[[Box], list[str]]:
    def act(box: Box) -> list[str]:
        box.run()
        change(box)
        return box.train(*(word.replace("TMP", str(box.tmp)) for word in more))

    return act


def old_is_there(result: Result, box: Box) -> bool:
    whole = {str(p.relative_to(box.finished_run)) for p in box.finished_run.rglob("*") if p.is_file()}
    found = {str(p.relative_to(box.out)) for p in box.out.rglob("*") if p.is_file()}
    return whole <= found and same(box.out / "model.safetensors", (box.finished_run / "model.safetensors").read_bytes())


def notes_kept(result: Result, box: Box) -> bool:
    return (box.out / "notes.txt").read_text() == "mine"


def notes(box: Box) -> Path:
    return box.text("out/notes.txt", "mine")


add("a finished run, once more", after_run(), refused("--resume", "--overwrite", check=old_is_there))
add("a finished run is gone on with", after_run("--resume"), works(old_is_there, "finished"))
add(
    "a finished run and more epochs",
    after_run("--resume", "--epochs", "5"),
    refused("epochs", check=old_is_there).either(0, 2),
)
add("overwrite with a mistake", after_run("--overwrite", "--crop", "99"), refused("crop", "99", check=old_is_there))
add(
    "overwrite with data that is not there",
    after_run("--overwrite", "--data", "TMP/gone"),
    refused("gone", check=old_is_there),
)
add(
    "overwrite keeps a user's notes",
    after_run("--overwrite", "--epochs", "1", change=notes),
    works(lambda r, b: notes_kept(r, b) and (b.out / "model.safetensors").is_file()),
)
add(
    "overwrite what it starts from",
    after_run("--overwrite", "--init", "TMP/out/model.safetensors"),
    refused("init", "overwrite", check=old_is_there),
)
add(
    "the output is a file",
    flags("--output", "TMP/file", make=lambda b: b.text("file", "x")),
    refused("--output", "file", check=lambda r, b: (b.tmp / "file").read_text() == "x"),
)
add(
    "the output is below a file",
    flags("--output", "TMP/file/sub/run", make=lambda b: b.text("file", "x")),
    refused("--output", "file"),
)
add("a folder of someone's notes", flags(make=notes), refused(r"notes\.txt", check=notes_kept))
add(
    "a folder of someone's notes and overwrite",
    flags("--overwrite", make=notes),
    refused(r"notes\.txt", check=notes_kept),
)
add(
    "a lock that a dead process left",
    flags("--epochs", "1", make=lambda b: b.text("out/.lock", "process 999999 on elsewhere")),
    works(lambda r, b: (b.out / "model.safetensors").is_file() and not (b.out / ".lock").exists()),
)
add(
    "the output is a link to nowhere",
    flags(make=lambda b: b.out.symlink_to(b.tmp / "not" / "there")),
    refused("--output", "out"),
)
add(
    "run.json is damaged",
    after_run("--overwrite", "--epochs", "1", change=lambda b: b.text("out/run.json", "{")),
    works(lambda r, b: json.loads((b.out / "run.json").read_text())),
)

# --- prompts and class names
TABLE.group = "prompts and class names"


def prompts(content: str | bytes) -> Callable[[Box], Any]:
    return lambda box: lambda: load_prompts(str(box.text("p.yaml", content)))


def words(*classes: str, **overrides: str) -> Callable[[Box], Any]:
    return lambda box: lambda: class_words(classes, overrides, "mvtec")


SET = 'normal: ["good {c}"]\nabnormal: ["bad {c}"]\ntemplates: ["a photo of a {s}."]\n'
add(
    "a template that is not a list",
    prompts(SET.replace('["a photo of a {s}."]', '"a photo of a {s}."')),
    refused("templates", "list"),
)
add("a list twice", prompts(SET + 'normal: ["fine {c}"]\n'), refused("normal", "twice"))
add("an empty list", prompts(SET.replace('["bad {c}"]', "[]")), refused("abnormal", "at least one|list"))
add("a number for a sentence", prompts(SET.replace('["bad {c}"]', "[1]")), refused("abnormal", "sentence"))
add("a built-in set in capitals", lambda b: lambda: load_prompts("TAB"), refused("TAB", "tab", "authors"))
add("a folder for a file", lambda b: lambda: load_prompts(str(b.images("p", 1))), refused("prompts", "file"))
add("latin-1", prompts(SET.replace("good", "g\u00fct").encode("latin-1")), refused(r"p\.yaml", "utf-8"))
add(
    "braces in a class name",
    lambda b: lambda: load_prompts(str(b.text("p.yaml", SET))).sentences("{s} {c} {0}"),
    works(lambda r, b: r.value[0] == ["a photo of a good {s} {c} {0}."]),
)
add(
    "capitals, hyphens and digits",
    words("PCB-Top_7", "metal_nut2"),
    works(lambda r, b: r.value == {"PCB-Top_7": "pcb top 7", "metal_nut2": "metal nut 2"}),
)
add(
    "a name of underscores alone",
    words("___", "nut"),
    works(lambda r, b: r.value["___"].strip() != "", "___").either(0, 2),
)
add(
    "letters beyond ASCII",
    words("Müller_Teil", "螺母"),
    works(lambda r, b: r.value == {"Müller_Teil": "müller teil", "螺母": "螺母"}),
)
add(
    "words of a class that is not there",
    words("hex_nut", "bolt", hexnut="nut"),
    refused("hexnut", "did you mean 'hex_nut'"),
)
add(
    "two classes with equal words",
    words("metal_nut", "metal-nut"),
    refused("metal_nut", "metal-nut|metal nut").either(0, 2),
)
add("class names that are not pairs", flags("--class-names", "capsule"), refused("class.names"))

# --- results and tables
TABLE.group = "results and tables"


def table(*lines: str | dict[str, Any], **options: Any) -> Callable[[Box], list[str]]:
    return lambda box: ["benchmark", "table", str(box.rows(*lines, **options))]


OTHER = row(key="f" * 16, **{"class": "bolt"}, image_auroc=0.5, data_sha256="2" * 64)
add("a last line that was cut off", table(row(), json.dumps(OTHER)[:200], end="\n"), refused("line 2").either(2))
add(
    "a last line that was cut off, without its end",
    lambda b: [
        "benchmark",
        "table",
        str(b.text("r/results.jsonl", json.dumps(row()) + "\n" + json.dumps(OTHER)[:99]).parent),
    ],
    works(None, r"\| nut +\| +100\.0"),
)
add("a line in the middle that is damaged", table(row(), '{"key": ', OTHER), refused(r"results\.jsonl", "line 2"))
add("an AUROC of 1.7", table(row(image_auroc=1.7)), refused(r"results\.jsonl", "line 1", "image_auroc|image AUROC"))
add("an AUROC that is NaN", table(row(image_auroc=float("nan"))), refused(r"results\.jsonl", "line 1"))
add("a folder that is not there", lambda b: ["benchmark", "table", str(b.tmp / "gone")], refused("gone"))
add(
    "the file in place of its folder",
    lambda b: ["benchmark", "table", str(b.rows(row()) / "results.jsonl")],
    works(None, r"\| nut +\| +100\.0"),
)
add(
    "an empty file",
    lambda b: ["benchmark", "table", str(b.text("r/results.jsonl", "").parent)],
    refused("results", "no"),
)
add("line ends of Windows", table(row(), OTHER, end="\r\n"), works(None, r"\| nut +\| +100\.0", r"\| bolt +\| +50\.0"))
add("a class with a bar in it", table(row(**{"class": "a|b"})), works(None, r"\| a\\\|b +\|"))
add("a class with an escape in it", table(row(**{"class": "nut\x1b[31m"})), works(no_escape, "nut"))
add(
    "one folder twice",
    lambda b: ["benchmark", "table", *[str(b.rows(row(), OTHER))] * 2],
    works(lambda r, b: r.out.count("| nut ") == 3, r"\| nut +\| +100\.0", r"average \(2\) +\| +75\.0"),
)
add(
    "one key twice: the last counts",
    table(row(image_auroc=0.25), row(image_auroc=0.5)),
    works(lambda r, b: "25.0" not in r.out, r"\| nut +\| +50\.0"),
)
add(
    "no metric at all",
    table(row(image_auroc=None, pixel_auroc=None, aupro=None, undefined_because={"image_auroc": "no defects"})),
    works(None, "undefined", "no defects"),
)

# --- flags of benchmark run
TABLE.group = "benchmark flags"


def bench(*more: str, make: Callable[[Box], Any] = lambda box: None) -> Callable[[Box], list[str]]:
    def act(box: Box) -> list[str]:
        make(box)
        return box.bench(*(word.replace("TMP", str(box.tmp)) for word in more))

    return act


NO_ROWS = left("out/results.jsonl")


def one_row(result: Result, box: Box) -> bool:
    return len((box.out / "results.jsonl").read_text().splitlines()) == 1


add("a seed below 0", bench("--seeds", "-1"), refused("seeds", "-1", check=NO_ROWS))
add(
    "seed, method and backbone twice",
    bench("--seeds", "0", "0", "--method", "padim", "padim", "--backbone", *["random:test_resnet"] * 2),
    works(one_row).either(0, 2),
)
add("no shots", bench("--shots", "0"), refused("shots", "0", check=NO_ROWS))
add("more shots than images", bench("--shots", "999"), refused("999", "capsule", "16", check=NO_ROWS))
add("a crop larger than the image", bench("--crop", "64"), refused("crop", "64", "40", check=NO_ROWS))
add("a class misspelt", bench("--classes", "hexnut"), refused("hexnut", "did you mean 'hex_nut'", check=NO_ROWS))
add(
    "a random architecture misspelt",
    bench("--backbone", "random:resnt18"),
    refused("resnt18", "did you mean", check=NO_ROWS),
)
add("no channels", bench("--padim-channels", "0"), refused("--padim-channels", "0", check=NO_ROWS))
add(
    "a share above 1",
    bench("--method", "patchcore", "--patchcore-share", "1.5"),
    refused("--patchcore-share", r"1\.5", check=NO_ROWS),
)
add(
    "a regularisation that is not a number",
    bench("--padim-regularisation", "nan"),
    refused("--padim-regularisation", "nan", check=NO_ROWS),
)
add("no images at a time", bench("--batch-size", "0"), refused("batch-size", "0", check=NO_ROWS))
add("workers below 0", bench("--workers", "-1"), refused("workers", "-1", check=NO_ROWS))
add(
    "the output is a file",
    bench("--output", "TMP/file", make=lambda b: b.text("file", "x")),
    refused("file", check=lambda r, b: (b.tmp / "file").read_text() == "x"),
)
add("a weights folder that is not there", bench("--backbone", "local-dir:TMP/gone"), refused("gone", check=NO_ROWS))

# --- weights folders
TABLE.group = "weights folders"


def verify(make: Callable[[Box], Path]) -> Callable[[Box], list[str]]:
    return lambda box: ["verify", str(make(box))]


def bare(content: bytes) -> Callable[[Box], list[str]]:
    return verify(lambda box: box.text("model.safetensors", content))


def flipped(box: Box) -> Path:
    folder = box.weights()
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-5] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    return folder


def record(**weights: Any) -> Callable[[Box], Path]:
    def make(box: Box) -> Path:
        folder = box.weights()
        content = json.loads((folder / "tabzoo.json").read_text())
        content["weights"] |= weights
        (folder / "tabzoo.json").write_text(json.dumps(content))
        return folder

    return make


def with_nan(box: Box) -> Path:
    save_file({"conv1.weight": torch.tensor([1.0, float("nan")])}, str(box.tmp / "w.safetensors"))
    return box.tmp / "w.safetensors"


add("one bit is another", verify(flipped), refused(r"model\.safetensors", "sha-256"))
add("a size in quotes", verify(record(size="1400")), refused(r"tabzoo\.json", "size"))
add("a size that is true", verify(record(size=True)), refused(r"tabzoo\.json|model\.safetensors", "size|bytes"))
add("a record of a file elsewhere", verify(record(file="../model.safetensors")), refused(r"tabzoo\.json", "file"))
add("a record that is a list", verify(lambda b: _with(b, "tabzoo.json", "[]")), refused(r"tabzoo\.json", "object"))
add("an empty record", verify(lambda b: _with(b, "tabzoo.json", "")), refused(r"tabzoo\.json", "json"))
add(
    "a licence of two lines",
    verify(lambda b: b.changed("tabzoo.json", license="mit\nevil: true")),
    refused(r"tabzoo\.json", "license"),
)
add(
    "a configuration of another architecture",
    verify(lambda b: b.changed("config.json", architecture="resnet18")),
    refused(r"tabzoo\.json", r"config\.json", "resnet18"),
)
add(
    "a configuration with arguments for code",
    verify(lambda b: b.changed("config.json", model_args={"block": "x"})),
    refused(r"config\.json", "model_args"),
)
add(
    "a header longer than the file",
    bare((1 << 60).to_bytes(8, "little") + b"{}"),
    refused(r"model\.safetensors", "truncated|complete"),
)
add(
    "a git lfs pointer",
    bare(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
    refused("git lfs pull"),
)
add(
    "a pickle under its name",
    verify(lambda b: Path(shutil.copy(b.checkpoint({"a": torch.ones(1)}), b.tmp / "model.safetensors"))),
    refused("tabzoo convert"),
)
add("a weight that is NaN", verify(with_nan), refused(r"conv1\.weight", "finite"))
add("a file of no tensors", bare((2).to_bytes(8, "little") + b"{}"), refused(r"model\.safetensors", "no tensors"))


def _with(box: Box, name: str, content: str) -> Path:
    folder = box.weights()
    (folder / name).write_text(content)
    return folder


# --- convert
TABLE.group = "convert"


def convert(make: Callable[[Box], Path], *more: str, name: str = "resnet18.mine") -> Callable[[Box], list[str]]:
    return lambda box: ["convert", str(make(box)), "--to", str(box.out), "--name", name, *more]


def poisoned(box: Box) -> Path:
    state = dict(box.state())
    state["conv1.weight"] = torch.full_like(state["conv1.weight"], float("inf"))
    return box.checkpoint(state)


def single_precision(result: Result, box: Box) -> bool:
    found, given = load_file(box.out / "model.safetensors"), box.state()
    return found["conv1.weight"].dtype == torch.float32 and torch.equal(
        found["conv1.weight"], given["conv1.weight"].half().float()
    )


def half(box: Box) -> Path:
    return box.checkpoint(
        {key: value.half() if value.is_floating_point() else value for key, value in box.state().items()}
    )


add("a text file", convert(lambda b: b.text("c.pt", "hello")), refused(r"c\.pt", check=NOTHING))
add("an empty file", convert(lambda b: b.text("c.pt", b"")), refused(r"c\.pt", "empty|torch.save|read", check=NOTHING))
add("a folder", convert(lambda b: b.images("c.pt", 1)), refused(r"c\.pt", "folder|directory|file", check=NOTHING))
add(
    "a file that is not there",
    convert(lambda b: b.tmp / "gone.pt"),
    refused(r"gone\.pt", "no such|not exist", check=NOTHING),
)
add(
    "a list of tensors",
    convert(lambda b: b.checkpoint([torch.ones(3), torch.ones(2)])),
    refused(r"checkpoint\.pt", "tensor|state|resnet", check=NOTHING),
)
add(
    "a classifier alone",
    convert(lambda b: b.checkpoint({"fc.weight": torch.ones(10, 512), "fc.bias": torch.ones(10)})),
    refused(r"checkpoint\.pt", "conv1|resnet", check=NOTHING),
)
add("weights that are infinite", convert(poisoned), refused(r"conv1\.weight", "finite|not numbers", check=NOTHING))
add("half precision", convert(half), works(single_precision))
add(
    "a larger architecture's name",
    convert(lambda b: b.checkpoint(b.state()), "--arch", "resnet50", name="mine"),
    refused("resnet50", r"layer|conv", check=NOTHING),
)
add(
    "an architecture that can't be converted",
    convert(lambda b: b.checkpoint({}), name="resnet34.mine"),
    refused("resnet34", "resnet18", "resnet50", check=NOTHING),
)
add(
    "a name in capitals",
    convert(lambda b: b.checkpoint({}), name="ResNet18.Mine"),
    refused("ResNet18.Mine", "lower-case letters", check=NOTHING),
)
add(
    "a folder that holds something",
    convert(lambda b: notes(b) and b.checkpoint(b.state())),
    refused("out", check=notes_kept),
)
add(
    "a licence of two lines",
    convert(lambda b: b.checkpoint(b.state()), "--license", "mit\nevil: true"),
    refused("license|licence", check=NOTHING),
)

# --- hub store
TABLE.group = "hub store"


def install(name: str, make: Callable[[Box], Path] = Box.weights) -> Callable[[Box], list[str]]:
    return lambda box: ["install", name, str(make(box))]


def store_is_empty(result: Result, box: Box) -> bool:
    folder = box.tmp / "home" / "weights"
    return not folder.exists() or os.listdir(folder) == []


def installed(*argv: str) -> Callable[[Box], list[str]]:
    def act(box: Box) -> list[str]:
        assert cli.main(["install", "test_resnet.mine", str(box.make_folder(SMALL))]) == 0
        return [word.replace("TMP", str(box.tmp)) for word in argv]

    return act


def still_there(result: Result, box: Box) -> bool:
    return (box.tmp / "home/weights/test_resnet.mine/model.safetensors").is_file()


add("a name without a tag", install("test_resnet"), refused("test_resnet", r"ARCHITECTURE\.TAG", check=store_is_empty))
add("a name that is a path", install("../../evil.mine"), refused("evil", r"ARCHITECTURE\.TAG", check=store_is_empty))
add("a name of timm's", install("resnet18.tv_in1k"), refused("timm", "another tag", check=store_is_empty))
add("a tag that says vit", install("test_resnet.vit_like"), refused("vit", check=store_is_empty))
add(
    "an architecture misspelt",
    install("test_resnt.mine"),
    refused("test_resnt", "did you mean 'test_resnet", check=store_is_empty),
)
add(
    "weights of another architecture",
    install("resnet18.mine"),
    refused("resnet18.mine", "test_resnet", check=store_is_empty),
)
add(
    "a source that is not there",
    install("test_resnet.mine", lambda b: b.tmp / "gone"),
    refused("gone", "no such", check=store_is_empty),
)
add(
    "a folder of images",
    install("test_resnet.mine", lambda b: b.images("img", 2)),
    refused("img", r"model\.safetensors", check=store_is_empty),
)
add(
    "installed already",
    lambda b: installed("install", "test_resnet.mine", str(b.make_folder(SMALL)))(b),
    refused("test_resnet.mine", "tabzoo uninstall", check=still_there),
)
add(
    "take away what is misspelt",
    installed("uninstall", "test_resnet.mien"),
    refused("did you mean 'test_resnet.mine'", check=still_there),
)
add("take away the store itself", installed("uninstall", ".."), refused(r"\.\.", "not installed", check=still_there))
add(
    "a stray file in the store",
    lambda b: b.text("home/weights/readme.txt", "x") and ["list"],
    works(None, "resnet18.tab_mvtec"),
)
add(
    "the store's place is a file",
    lambda b: b.text("home", "x") and ["list", "--json"],
    works(None, "resnet18.tab_mvtec").either(0, 2),
)
add(
    "download into a folder that holds something",
    lambda b: notes(b) and installed("download", "test_resnet.mine", "--to", "TMP/out")(b),
    refused("out", check=notes_kept),
)

# --- names, paths and what others left
TABLE.group = "names, paths and remains"


def python(act: Callable[[Box], Any]) -> Callable[[Box], Any]:
    return lambda box: lambda: act(box)


def human(path: object) -> list[str]:
    return ["data", "check", str(path)]


def odd_file(name: str) -> Callable[[Box], list[str]]:
    def act(box: Box) -> list[str]:
        box.images("data/nut")
        (box.tmp / "data" / "nut" / name).write_bytes(box.image("x.png").read_bytes())
        return human(box.tmp / "data")

    return act


def remains(box: Box) -> Any:
    """A cache folder with a lock, half an entry and a file of someone's in it."""
    cache = box.tmp / "cache"
    box.text("cache/.0123.tmp/images.npy", b"half")
    box.text("cache/.0123.lock", "")
    box.text("cache/holiday.jpg", "x")
    samples = find_samples(box.images("nut"))
    return open_images(samples, size=16, cache_dir=cache, workers=0, progress=False)


add(
    "blanks, quotes and letters beyond ASCII in the path",
    lambda b: human(b.mvtec("it's mine – für $HOME/nut")),
    works(None, "7 images", r"--data '.*mine – für \$HOME"),
)
add(
    "a class with a line end in its name",
    lambda b: human(b.mvtec("data/hex\nnut")),
    works(lambda r, b: "hex\nnut" not in r.out, r"hex\\n|hex nut|hex\?nut"),
)
add(
    "an escape in the name of a broken file",
    lambda b: b.images("data/nut") and b.text("data/nut/\x1b[31mred.png", b"") and human(b.tmp / "data"),
    problem("unreadable", "empty", check=no_escape),
)
add("a name that is not UTF-8", odd_file(os.fsdecode(b"caf\xe9.png")), works(None, "6 images"))
add("a name of 255 bytes", odd_file("x" * 251 + ".png"), works(None, "6 images"))
add("a name that begins with a hyphen", odd_file("--strict.png"), works(None, "6 images"))
add(
    "classes that differ in case",
    lambda b: look(b.images("data/Nut") and b.images("data/nut") and b.tmp / "data"),
    works(total(10, Nut=5, nut=5)),
)
add(
    "a link to nowhere",
    lambda b: (
        (b.images("data/nut") and (b.tmp / "data/nut/gone.png").symlink_to("/not/there.png")) or look(b.tmp / "data")
    ),
    problem(r"gone\.png", "link", r"not/there\.png"),
)
add(
    "a pipe",
    lambda b: (b.images("data/nut") and os.mkfifo(b.tmp / "data/nut/pipe.png")) or look(b.tmp / "data"),
    works(lambda r, b: r.json["classes"]["nut"]["train"]["good"] == 5 and r.json["total"] == 5),
)
add("a home folder that the shell did not fill in", lambda b: look("~/no_such_images"), refused("no_such_images"))
add(
    "remains in the cache",
    python(remains),
    works(lambda r, b: len(r.value) == 5 and (b.tmp / "cache/holiday.jpg").read_text() == "x"),
)
add(
    "a class whose name is a path's",
    lambda b: look(
        b.text("m.csv", "path,class\n" + "".join(f"i/00{i}.png,../../etc\n" for i in range(5))) if b.images("i") else ""
    ),
    works(total(5, **{"../../etc": 5})).either(0, 2),
)

# --- the Python functions
TABLE.group = "python functions"


def output_shape(*shape: int, channels: int = 3) -> Callable[[Result, Box], bool]:
    return lambda r, b: tuple(r.value.eval()(torch.rand(2, channels, 32, 32)).shape) == shape


def toys(**options: Any) -> Callable[[Box], Any]:
    options = {"size": 32, "train": 1, "test_good": 1, "test_defect": 1} | options
    return python(lambda b: make_toy_factory(b.out, **options))


add(
    "weights that are not published",
    python(lambda b: tabzoo.create_model("resnet18.tab_mvtec")),
    refused("not published", "tabzoo install"),
)
add(
    "a model misspelt",
    python(lambda b: tabzoo.create_model("resnet18.tab_mvtek")),
    refused("tab_mvtek", "did you mean"),
)
add(
    "a folder with a classifier of 10",
    python(lambda b: tabzoo.create_model(b.make_folder(SMALL), num_classes=10)),
    works(output_shape(2, 10)),
)
add(
    "a folder for grey images",
    python(lambda b: tabzoo.create_model(b.make_folder(SMALL), in_chans=1, num_classes=3)),
    works(output_shape(2, 3, channels=1)),
)
add("an empty path", python(lambda b: find_samples("")), refused("folder|path"))
add("no layout", python(lambda b: find_samples(b.images("nut"), layout=None)), refused("layout", "auto", "mvtec"))  # type: ignore[arg-type]
add(
    "a cache mode misspelt",
    python(lambda b: open_images(find_samples(b.images("nut")), mode="disc")),
    refused("disc", "disk"),
)  # type: ignore[arg-type]
add(
    "no sample",
    python(lambda b: open_images(find_samples(b.images("nut")).select([]), mode="ram")),
    refused("no images"),
)
add(
    "a resampling misspelt",
    python(lambda b: read_image(b.image("a.png"), size=8, resampling="cubic")),
    refused("cubic", "lanczos", "bilinear"),
)  # type: ignore[arg-type]
add(
    "a text for a list of toy classes",
    toys(classes="capsule"),
    works(lambda r, b: os.listdir(b.out) == ["capsule"]).either(0, 2),
)
add("no toy class", toys(classes=[]), refused("class"))
add(
    "a toy class twice",
    toys(classes=("capsule", "capsule")),
    works(lambda r, b: len(find_samples(b.out)) == 3).either(0, 2),
)
add("a toy class misspelt", toys(classes=("capsul",)), refused("capsul", "did you mean 'capsule'", check=NOTHING))
add(
    "a mask that would have no side",
    python(lambda b: read_mask(b.image("a.png"), size=0)),
    refused("size 0", "at least 1"),
)


# --- the runner
@pytest.fixture(scope="module")
def state() -> Callable[[], dict[str, torch.Tensor]]:
    kept: list[dict[str, torch.Tensor]] = []

    def get() -> dict[str, torch.Tensor]:
        if not kept:
            kept.append(timm.create_model("resnet18", pretrained=False).state_dict())
        return kept[0]

    return get


@pytest.fixture
def box(
    tmp_path: Path,
    toy: Path,
    small: Callable[..., list[str]],
    make_folder: Callable[..., Path],
    state: Callable[[], dict[str, torch.Tensor]],
    tmp_path_factory: pytest.TempPathFactory,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Box:
    made: dict[str, Path] = request.config.stash.setdefault(_FOLDERS, {})

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = make_folder(name)
        return made[name]

    group = request.node.callspec.params["case"].group if hasattr(request.node, "callspec") else ""
    if group == "run folders" and "run" not in made:
        out = tmp_path_factory.mktemp("finished") / "out"
        assert cli.main(["pretrain", *small("--output", str(out))]) == 0
        made["run"] = out
    return Box(tmp_path, toy, small, folder, made.get("run", tmp_path), state, monkeypatch)


_FOLDERS = pytest.StashKey[dict[str, Path]]()


def outcome(case: Case, box: Box, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Result:
    """What the case's input leads to; an error that is none of tabzoo's goes through, as a user would see it."""
    what = case.act(box)
    capsys.readouterr()
    caplog.clear()
    value, error, code = None, None, 0
    try:
        if callable(what):
            value = what()
        else:
            code = cli.main([str(word) for word in what])
    except TabzooError as raised:
        error, code = raised, 2
    except SystemExit as ended:
        code = int(ended.code or 0)
    out, err = capsys.readouterr()
    return Result(code, out, "\n".join([err, caplog.text, str(error or "")]), value, error)


@pytest.mark.parametrize("case", TABLE.cases, ids=lambda case: f"{case.group}: {case.name}")
def test_odd_input(case: Case, box: Box, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    result = outcome(case, box, capsys, caplog)
    shown = f"exit code {result.code}\n{result.out}\n{result.said}\nvalue: {result.value!r}"
    assert result.code in case.right.codes, shown
    assert "Traceback" not in shown
    for words_ in case.right.says:
        assert found(words_, result, box), f"no {words_!r} in:\n{shown}"
    if case.right.check is not None and not (result.code == 2 and 0 in case.right.codes):
        assert case.right.check(result, box), shown


def found(words_: str, result: Result, box: Box) -> bool:
    plain = result.plain.replace(str(box.tmp), "TMP")  # the folder's name holds the case's, and so some of the words
    return re.search(words_, plain, re.IGNORECASE) is not None

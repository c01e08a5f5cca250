"""Manifests: tables that list a data set."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image
from trees import table, touch

from tabzoo.data.layouts import find_samples
from tabzoo.errors import InputError


def test_csv_manifest(tmp_path: Path):
    touch(tmp_path, "x/1.png", "x/2.png", "3.png")
    (tmp_path / "list.csv").write_text(
        "path,class,split,label,mask\nx/2.png,nut,train,good,\nx/1.png,nut,TRAIN,,\n./3.png,bolt,test,scratch,m/3.png\n/abs/4.png,nut,test,1,\n"
    )
    samples = find_samples(tmp_path / "list.csv")
    assert (samples.root, samples.layout) == (tmp_path, "manifest")
    assert table(samples) == [
        ("bolt", "test", "scratch", "3.png"),
        ("nut", "train", "good", "x/1.png"),
        ("nut", "train", "good", "x/2.png"),
        ("nut", "test", "anomaly", "/abs/4.png"),
    ]
    assert samples.mask_path(0) == tmp_path / "m/3.png"
    assert samples.path(3) == Path("/abs/4.png")


def test_masks_of_a_manifest_follow_their_images(tmp_path: Path):
    (tmp_path / "list.csv").write_text(
        "path,class,split,label,mask\n2.png,nut,test,bad,b.png\n0.png,nut,test,Good,\n1.png,nut,test,bad,a.png\n"
    )
    samples = find_samples(tmp_path / "list.csv")
    assert [row[2:] for row in table(samples)] == [("good", "0.png"), ("bad", "1.png"), ("bad", "2.png")]
    assert samples.masks.tolist() == [b"", b"a.png", b"b.png"]


def test_manifest_from_a_german_excel(tmp_path: Path):
    (tmp_path / "list.csv").write_bytes(b"\xef\xbb\xbfPath;Class;Comment\r\na\\b\\1.png;Mutter;ja, gut\r\n")
    assert table(find_samples(tmp_path / "list.csv")) == [("Mutter", "train", "good", "a/b/1.png")]


@pytest.mark.parametrize("name", ["m.csv", "m.jsonl"])
@pytest.mark.parametrize(
    ("label", "kind"),
    [
        *((label, "good") for label in ("0", "0.0", "0.00", "0e0", "-0.0", "False", "Good", "OK", "normal", "")),
        *((label, "anomaly") for label in ("1", "1.0", "true")),
        *((label, label) for label in ("scratch", "1a", "0 and 1", "type_0")),
        *((label, None) for label in ("nan", "NaN", "None", "null", "n/a", "-1", "2", "0.3333", "inf", "1e400")),
        *((label, None) for label in ("-", "?", "unlabeled", "unknown", "no", "Yes", "9" * 5000)),
    ],
)
def test_labels_of_a_manifest(name: str, label: str, kind: str | None, tmp_path: Path):
    """Numbers are read in every form that spreadsheets write; a value that is not a label is an error, not a kind of defect."""
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    row = {"path": "a.png", "class": "nut", "split": "test", "label": label}
    csv_text = f"path,class,split,label\na.png,nut,test,{label}\n"
    (tmp_path / name).write_text(csv_text if name == "m.csv" else json.dumps(row) + "\n")
    if kind is None:
        with pytest.raises(
            InputError, match=rf"{name}, line \d: label '{re.escape(label)}'; expected good, a kind of defect, or 0"
        ):
            find_samples(tmp_path / name)
    else:
        samples = find_samples(tmp_path / name)
        assert samples.defects[samples.defect_ids[0]] == kind
        assert samples.labels.tolist() == [int(kind != "good")]


def test_jsonl_manifest(tmp_path: Path):
    (tmp_path / "list.jsonl").write_text(
        '{"path": "1.png", "class": "nut", "mask": null}\n\n{"path": "2.png", "class": "nut", "label": 1}\n'
    )
    assert table(find_samples(tmp_path / "list.jsonl")) == [
        ("nut", "train", "good", "1.png"),
        ("nut", "train", "anomaly", "2.png"),
    ]


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("a.csv", "file,class\n1.png,a\n", "line 1: no field 'path'; expected path, class; got file, class"),
        ("a.csv", "", "line 1: no field 'path'; expected path, class; got none"),
        ("a.csv", "path,class\n", "no rows"),
        ("a.csv", "path,class\n1.png,\n", "line 2: no class given"),
        ("a.csv", "path,class\n,a\n", "line 2: no path given"),
        ("a.csv", "path,class,split\n1.png,a,val\n", "line 2: split 'val'; accepted: train, test"),
        ("a.csv", "path,class\n1.png,a\n./1.png,b\n", "line 3: 1.png is listed twice, first in line 2"),
        ("a.jsonl", '{"path": "1.png"}\n', "line 1: no field 'class'"),
        ("a.jsonl", "{\n", "line 1: not JSON"),
        ("a.jsonl", "[1]\n", r"line 1: expected an object, got \[1\]"),
        ("a.jsonl", '{"path": null, "class": "a"}\n', "line 1: no path given"),
        ("a.jsonl", '{"path": 1, "class": "a"}\n', "line 1: path is 1; expected text"),
        ("a.jsonl", '{"path": "a", "class": ["a"]}\n', "line 1: class is a list or an object; expected text"),
        ("a.jsonl", '{"path": "a", "class": "a", "label": {"b": 1}}\n', "line 1: label is a list or an object"),
        ("a.jsonl", '{"path": "a", "class": "a", "label": "good", "Label": "bad"}\n', "'label' is given twice"),
        ("a.jsonl", '{"path": "\\ud800", "class": "a"}\n', r"line 1: path is '\\ud800'; expected valid Unicode"),
        ("a.jsonl", '{"path": "a", "class": "\\ud800"}\n', r"line 1: class is '\\ud800'; expected valid Unicode"),
        (
            "a.jsonl",
            '{"path": "a\\u0000", "class": "a"}\n',
            r"line 1: path is 'a\\x00'; expected valid Unicode without NUL",
        ),
        ("a.jsonl", f'{{"path": "a", "class": "a", "label": {"9" * 5000}}}\n', "line 1: not JSON: Exceeds the limit"),
        ("a.jsonl", "[" * 100_000 + "\n", "line 1: not JSON: maximum recursion depth"),
        ("a.csv", "path,class,label,label\na,b,good,bad\n", "line 1: the field 'label' is given twice"),
        ("a.csv", 'path,class\n"a.png,nut\nb.png,nut\n', "line 3: not a row of a table: unexpected end of data"),
        ("a.csv", "path,class\nx,1.png,nut\n", "line 2: 3 fields, the first line has 2; put a field that contains ','"),
        ("a.csv", "path,class\nx\0,nut\n", r"line 2: path is 'x\\x00'; expected valid Unicode without NUL"),
        ("a.txt", "1.png\n", "a file; expected a folder of images, or a manifest that ends in .csv or .jsonl"),
    ],
)
def test_bad_manifest(name: str, content: str, error: str, tmp_path: Path):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=error) as caught:
        find_samples(tmp_path / name)
    assert str(caught.value).startswith(str(tmp_path / name))


def test_manifest_that_is_not_utf8(tmp_path: Path):
    for name, content in (("a.csv", b"path,class\n\xe9.png,a\n"), ("a.jsonl", b'{"path": "\xe9"}\n')):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match="UTF-8"):
            find_samples(tmp_path / name)


def test_manifest_with_a_layout(tmp_path: Path):
    (tmp_path / "a.csv").write_text("path,class\n1.png,a\n")
    with pytest.raises(InputError, match="remove --layout mvtec"):
        find_samples(tmp_path / "a.csv", layout="mvtec")

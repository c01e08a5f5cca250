"""Prepares photos for the ONNX file beside it, and runs it. Needs NumPy, Pillow and, to run it, onnxruntime; not tabzoo.

python NAME_prepare.py PHOTO ...    a line of JSON for each photo; exit code 0: all good, 1: a defective one, 2: an error

In Python, `prepare(path)` is a row of the model's input. Whole photos are squashed to a square. Orientation by EXIF is applied;
alpha and colour profiles are dropped; the first page or frame is read. Grey photos of more than 8 bits: 0 becomes 0 and
WHITE_LEVEL 255; None stands for the largest value of the file's bits, or 1 for floats.
"""

import json
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

MODEL = "model.onnx"
SIZE = 224
RESAMPLING = "lanczos"
WHITE_LEVEL: float | None = None

_MAX_PIXELS = 178_956_970
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
_TIFF_BITS, _EXIF_ORIENTATION = 258, 274


def prepare(path: str) -> NDArray[np.uint8]:
    """A photo as the model takes it, uint8 RGB [SIZE, SIZE, 3].

    Raises:
        OSError, ValueError, SyntaxError: The file can't be read as an image.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(path, formats=_FORMATS) as image:
            if image.width * image.height > _MAX_PIXELS:
                raise ValueError(f"more than {_MAX_PIXELS:,} pixels")
            deep = any(re.search(";16[BLN]", str(tile)) for tile in image.tile)
            image.load()
            bits = getattr(image, "tag_v2", {}).get(_TIFF_BITS, (16,))[0]
            plain = _to_8_bit(_upright(image), bits, deep)
    if plain.size != (SIZE, SIZE):
        plain = plain.resize((SIZE, SIZE), Image.Resampling[RESAMPLING.upper()])
    return np.array(plain.convert("RGB"))


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image) if image.getexif().get(_EXIF_ORIENTATION, 1) != 1 else image
    except Exception:  # broken EXIF data
        return image


def _to_8_bit(image: Image.Image, bits: int, deep: bool) -> Image.Image:
    if image.mode.startswith("I;16"):
        return _scaled(image, WHITE_LEVEL or 2**bits - 1)
    if image.mode in ("I", "F"):
        return _scaled(image, WHITE_LEVEL or (65535 if image.mode == "I" else 1))
    if deep and WHITE_LEVEL is not None:
        raise ValueError("only the upper 8 of its 16 bits per channel can be read, so a white level has no use")
    if image.mode in ("L", "RGB"):
        return image
    return image.convert("L" if image.mode in ("1", "LA") else "RGB")


def _scaled(image: Image.Image, white: float) -> Image.Image:
    values = np.asarray(image, dtype=np.float32)
    if not np.isfinite(values).any():
        raise ValueError("no pixel has a finite value")
    inside = np.where(np.isfinite(values), values, 0).clip(0, white)
    return Image.fromarray(np.rint(inside * np.float32(255 / white)).astype(np.uint8))


def judge(session: Any, path: str) -> dict[str, object]:
    """What the model says about a photo: score and verdict of a detector, the embedding of a backbone."""
    names = [entry.name for entry in session.get_outputs()]
    found = dict(zip(names, session.run(names, {"photos": prepare(path)[None]}), strict=True))
    if "verdict" not in found:
        return {"file": path, "embedding": found["embedding"][0].tolist()}
    verdict = "defective" if found["verdict"][0] else "good"
    return {"file": path, "score": float(found["score"][0]), "verdict": verdict}


def main(paths: list[str]) -> int:
    """Prints a line for each photo; returns the exit code."""
    import onnxruntime

    if not paths:
        print(f"usage: python {sys.argv[0]} PHOTO ...", file=sys.stderr)
        return 2
    session = onnxruntime.InferenceSession(str(Path(__file__).with_name(MODEL)), providers=["CPUExecutionProvider"])
    verdicts = set()
    for path in paths:
        try:
            row = judge(session, path)
        except Exception as error:  # Pillow's decoders raise errors of many kinds
            row = {"file": path, "verdict": "error", "error": str(error) or type(error).__name__}
        print(json.dumps(row, ensure_ascii=False))
        verdicts.add(row.get("verdict"))
    return 2 if "error" in verdicts else int("defective" in verdicts)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

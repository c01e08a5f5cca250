"""A generated toy factory: small product images with defects and pixel masks, as an MVTec AD tree; no download.

A function paints a good product and keeps what is under it; a defect is a function that damages the painting. Light and
camera come last and are the same with and without the defect. So the mask is exact: it is where the two images differ.

Coordinates run from -1 to 1 over the image. Shapes are signed distances, which gives smooth edges at any size.
"""

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from tabzoo.errors import InputError, did_you_mean

__all__ = ["TOY_CLASSES", "make_toy_factory"]

Array = NDArray[np.floating[Any]]
RGB = tuple[float, float, float]

# A pixel belongs to the mask when a channel changes by more than this many of 255 grey levels.
_VISIBLE = 12
# A defect that changes a smaller fraction of the image is drawn again: it is on something of its own colour.
_SMALLEST_DEFECT = 0.003


class Painting(NamedTuple):
    """A good product, before light and camera; `under` is what is visible where material is missing."""

    pixels: Array  # [H, W, 3], 0 to 1
    under: Array  # [H, W, 3]
    parts: NDArray[np.intp]  # [H, W], 0 outside the product, 1 its body, from 2 on the parts that can go missing


class ToyImage(NamedTuple):
    """One finished image.

    Attributes:
        image: The product, with its defect if it has one.
        good: The same image without the defect.
        mask: Where the two differ.
    """

    image: NDArray[np.uint8]  # [H, W, 3]
    good: NDArray[np.uint8]  # [H, W, 3]
    mask: NDArray[np.bool_]  # [H, W]


def _grid(size: int) -> tuple[Array, Array]:
    axis = (np.arange(size, dtype=np.float32) + 0.5) * (2 / size) - 1
    return axis[None, :].repeat(size, 0), axis[:, None].repeat(size, 1)


def _posed(rng: Generator, size: int, *, shift: float, rotation: float, zoom: float) -> tuple[Array, Array]:
    """The coordinates of a product that is shifted, rotated (radians) and scaled by up to these amounts."""
    x, y = _grid(size)
    angle, scale = rng.uniform(-rotation, rotation), 1 + rng.uniform(-zoom, zoom)
    x, y = x - rng.uniform(-shift, shift), y - rng.uniform(-shift, shift)
    c, s = np.cos(angle) / scale, np.sin(angle) / scale
    return c * x + s * y, c * y - s * x


def _cloud(rng: Generator, size: int, rows: int, columns: int) -> Array:
    """Smooth noise of about unit variance with this many bumps down and across. [H, W]"""
    cells = Image.fromarray(rng.standard_normal((rows, columns)).astype(np.float32))
    return np.asarray(cells.resize((size, size), Image.Resampling.BICUBIC))


def _cover(distance: Array, blur: float = 0.0) -> Array:
    """How much of each pixel a shape covers, from the signed distance to its edge."""
    share: Array = np.clip(0.5 - distance / (2 / distance.shape[0] + blur), 0, 1)
    return share


def _box(x: Array, y: Array, width: float, height: float, corner: float = 0.0) -> Array:
    """Signed distance to a rectangle of these half sides with rounded corners."""
    dx, dy = np.abs(x) - width + corner, np.abs(y) - height + corner
    return np.hypot(np.maximum(dx, 0), np.maximum(dy, 0)) + np.minimum(np.maximum(dx, dy), 0) - corner


def _paint(below: Array, colour: RGB | Array, alpha: Array) -> Array:
    return below + (np.asarray(colour) - below) * alpha[..., None]


def _jitter(rng: Generator, colour: RGB, hue: float = 0.03, brightness: float = 0.08) -> Array:
    tinted = np.asarray(colour) + rng.uniform(-hue, hue, 3)
    return np.clip(tinted * (1 + rng.uniform(-brightness, brightness)), 0, 1)


def _plain(rng: Generator, size: int, colour: RGB) -> Array:
    """A table top under an object."""
    return _jitter(rng, colour, hue=0.015) + 0.015 * _cloud(rng, size, 8, 8)[..., None]


def _woven_fabric(rng: Generator, size: int) -> Painting:
    x, y = _posed(rng, size, shift=1.0, rotation=0.12, zoom=0.08)
    u, v = (7 * axis + 0.12 * _cloud(rng, size, 3, 3) for axis in (x, y))
    row = np.floor(v).astype(np.intp)
    warp_on_top = (np.floor(u).astype(np.intp) + row) % 2 == 0
    ridge_u, ridge_v = np.sin(np.pi * (u % 1)), np.sin(np.pi * (v % 1))
    yarn = 1 + 0.05 * _cloud(rng, size, 24, 24)
    warp = _jitter(rng, (0.34, 0.44, 0.68)) * (yarn * (0.35 + 0.65 * ridge_u))[..., None]
    weft = _jitter(rng, (0.72, 0.76, 0.84)) * (yarn * (0.35 + 0.65 * ridge_v))[..., None]
    # The upper thread sinks towards its ends, where it passes under the next.
    sink = 0.7 + 0.3 * np.where(warp_on_top, ridge_v, ridge_u)
    pixels = np.where(warp_on_top[..., None], warp, weft) * sink[..., None]
    return Painting(pixels, 0.55 * warp, row - row.min() + 2)


def _brushed_steel(rng: Generator, size: int) -> Painting:
    x, y = _posed(rng, size, shift=0.5, rotation=0.6, zoom=0.1)
    streaks = 0.045 * _cloud(rng, size, size, 4) + 0.03 * _cloud(rng, size, size // 2, 1)
    sheen = 0.12 * np.cos(2.2 * x + 0.6 * y + rng.uniform(0, 2 * np.pi))
    pixels = _jitter(rng, (0.60, 0.62, 0.65), hue=0.015) + (streaks + sheen)[..., None]
    return Painting(pixels, 0.3 * pixels, np.ones((size, size), np.intp))


def _wood_grain(rng: Generator, size: int) -> Painting:
    x, _ = _posed(rng, size, shift=1.0, rotation=0.15, zoom=0.15)
    rings = 4.5 * x + 0.55 * _cloud(rng, size, 3, 4) + rng.uniform(0, 1)
    # Early wood is broad and light, late wood a thin dark line: a saw tooth with a soft flank.
    late = (rings % 1) ** 3 * _cover(rings % 1 - 0.95, blur=0.1)
    fibres = 0.04 * _cloud(rng, size, 4, size) + 0.02 * _cloud(rng, size, size // 4, size)
    light, dark = _jitter(rng, (0.80, 0.60, 0.38)), _jitter(rng, (0.50, 0.31, 0.16))
    pixels = _paint(np.broadcast_to(light, (size, size, 3)), dark, 0.8 * late) + fibres[..., None]
    return Painting(pixels, 0.3 * np.broadcast_to(dark, pixels.shape), np.ones((size, size), np.intp))


def _hex_nut(rng: Generator, size: int) -> Painting:
    x, y = _posed(rng, size, shift=0.12, rotation=np.pi, zoom=0.1)
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    axes = [k * np.pi / 3 for k in range(3)]
    flats = np.max([np.abs(x * np.cos(a) + y * np.sin(a)) for a in axes], axis=0)
    body = np.maximum(np.maximum(flats - 0.6, radius - 0.67), 0.31 - radius)
    table = _plain(rng, size, (0.20, 0.27, 0.36))
    table = table * (1 - 0.5 * _cover(np.maximum(flats - 0.64, 0.27 - radius), blur=0.12))[..., None]
    glow = rng.uniform(0, 2 * np.pi)
    # Flat top, a chamfer whose brightness depends on the angle to the light, and the start of the thread.
    shade = 0.74 + 0.10 * np.cos(angle - glow) * _cover(0.53 - radius)
    thread = _cover(radius - 0.40)
    shade = shade - 0.30 * thread * (0.6 + 0.4 * np.cos(2 * np.pi * radius / 0.05 + angle + glow))
    shade = shade + 0.02 * _cloud(rng, size, 12, 12)
    metal = _jitter(rng, (0.92, 0.90, 0.84), hue=0.02) * shade[..., None]
    return Painting(_paint(table, metal, _cover(body)), table, (body < 0).astype(np.intp))


# x, y, half width, half height, corner radius, colour: two chips, capacitors, resistors.
_BOARD_PARTS: tuple[tuple[float, float, float, float, float, RGB], ...] = (
    (-0.32, -0.34, 0.25, 0.26, 0.02, (0.10, 0.10, 0.12)),
    (0.42, 0.36, 0.19, 0.24, 0.02, (0.12, 0.12, 0.14)),
    (0.24, -0.52, 0.15, 0.15, 0.15, (0.72, 0.74, 0.78)),
    (0.60, -0.44, 0.15, 0.15, 0.15, (0.72, 0.74, 0.78)),
    (-0.58, 0.22, 0.13, 0.075, 0.01, (0.72, 0.52, 0.26)),
    (-0.58, 0.48, 0.13, 0.075, 0.01, (0.72, 0.52, 0.26)),
    (-0.10, 0.22, 0.13, 0.075, 0.01, (0.22, 0.30, 0.58)),
    (-0.10, 0.48, 0.13, 0.075, 0.01, (0.22, 0.30, 0.58)),
)


def _circuit_board(rng: Generator, size: int) -> Painting:
    x, y = _posed(rng, size, shift=0.04, rotation=0.06, zoom=0.04)
    outline = np.maximum(_box(x, y, 0.90, 0.82, 0.06), 0.05 - np.hypot(np.abs(x) - 0.80, np.abs(y) - 0.72))
    bench = _plain(rng, size, (0.70, 0.70, 0.68))
    under = _paint(bench, _plain(rng, size, (0.08, 0.40, 0.22)), _cover(outline))
    copper, tin = _jitter(rng, (0.22, 0.58, 0.32)), _jitter(rng, (0.82, 0.80, 0.72))
    for (ax, ay, *_), (bx, by, *_) in zip(_BOARD_PARTS, _BOARD_PARTS[1:] + _BOARD_PARTS[:1], strict=True):
        across = _box(x - (ax + bx) / 2, y - ay, abs(bx - ax) / 2 + 0.015, 0.015)
        down = _box(x - bx, y - (ay + by) / 2, 0.015, abs(by - ay) / 2 + 0.015)
        under = _paint(under, copper, _cover(np.minimum(across, down)))
    for px, py, width, height, *_ in _BOARD_PARTS:
        pins = np.maximum(_box(x - px, y - py, width + 0.05, height * 0.9), -np.cos(50 * (y - py)) / 50)
        under = _paint(under, tin, _cover(pins))
    pixels, parts = under, (outline < 0).astype(np.intp)
    for label, (px, py, width, height, corner, colour) in enumerate(_BOARD_PARTS, start=2):
        part = _box(x - px, y - py, width, height, corner)
        # A lighter inner face gives the part its height.
        face = _jitter(rng, colour) + 0.07 * _cover(part + 0.05)[..., None]
        pixels = _paint(pixels, face, _cover(part))
        parts[part < 1 / size] = label  # to the outer end of its smooth edge
    return Painting(pixels, under, parts)


def _capsule(rng: Generator, size: int) -> Painting:
    x, y = _posed(rng, size, shift=0.12, rotation=np.pi, zoom=0.1)
    body = _box(x, y, 0.74, 0.30, 0.30)
    tray = _plain(rng, size, (0.36, 0.38, 0.42))
    tray = tray * (1 - 0.4 * _cover(body - 0.03, blur=0.12))[..., None]
    red, white = _jitter(rng, (0.82, 0.22, 0.20)), _jitter(rng, (0.93, 0.91, 0.86), hue=0.02)
    # The red half slips over the white one and is a little wider.
    seam = rng.uniform(-0.05, 0.05)
    shell = _paint(np.broadcast_to(white, tray.shape), red, _cover(x - seam))
    shell = shell * (1 - 0.35 * _cover(np.abs(x - seam) - 0.012))[..., None]
    roundness = np.clip(-body / 0.3, 0, 1)
    shell = shell * (0.55 + 0.45 * np.sqrt(roundness))[..., None]
    gleam = _cover(_box(x, y + 0.11, 0.46, 0.03, 0.03), blur=0.06)
    return Painting(_paint(tray, _paint(shell, (1, 1, 1), 0.5 * gleam), _cover(body)), tray, (body < 0).astype(np.intp))


def _well_inside(x: Array, y: Array) -> NDArray[np.bool_]:
    # The edge of the image would cut off a defect that is centred outside of this.
    return np.maximum(np.abs(x), np.abs(y)) < 0.8


def _place(rng: Generator, where: NDArray[np.bool_], rotation: float = np.pi) -> tuple[Array, Array]:
    """Coordinates around a random pixel of `where`, rotated by up to `rotation`."""
    x, y = _grid(len(where))
    spots = np.flatnonzero(where & _well_inside(x, y))
    spot, angle = spots[rng.integers(len(spots))], rng.uniform(-rotation, rotation)
    x, y = x - x.flat[spot], y - y.flat[spot]
    return np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x


def _patch(rng: Generator, where: NDArray[np.bool_], radius: tuple[float, float], jag: float) -> Array:
    """Signed distance to a roughly round patch with an uneven edge."""
    x, y = _place(rng, where)
    waves = [np.sin(k * np.arctan2(y, x) + rng.uniform(0, 2 * np.pi)) / k for k in (2, 3, 5, 7)]
    distance: Array = np.hypot(x, y) - rng.uniform(*radius) * (1 + jag * np.sum(waves, axis=0))
    return distance


def _stained(
    art: Painting, rng: Generator, colour: RGB, radius: tuple[float, float] = (0.14, 0.26), alpha: float = 0.75
) -> Array:
    """A patch of another colour on the product."""
    product = art.parts > 0
    mottled = np.clip(alpha + 0.1 * _cloud(rng, len(product), 12, 12), 0, 1)
    return _paint(art.pixels, _jitter(rng, colour), mottled * product * _cover(_patch(rng, product, radius, 0.4), 0.04))


def _holed(art: Painting, rng: Generator) -> Array:
    """A hole in the product, with the dark ground visible."""
    product = art.parts > 0
    return _paint(art.pixels, 0.4 * art.under, product * _cover(_patch(rng, product, (0.11, 0.19), 0.25)))


def _chipped(art: Painting, rng: Generator) -> Array:
    """A piece broken off the outer edge."""
    product, padded, (x, y) = art.parts > 0, np.pad(art.parts > 0, 1), _grid(len(art.parts))
    core = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    # The inner edge of a nut is nearer to its centre than most of its pixels, the outer edge is farther away.
    reach = np.hypot(x - x[product].mean(), y - y[product].mean())
    edge = product & ~core & (reach > np.median(reach[product]))
    return _paint(art.pixels, art.under, _cover(_patch(rng, edge, (0.16, 0.26), 0.35)))


def _lost(art: Painting, rng: Generator, stretch: tuple[float, float] = (2.0, 2.0)) -> Array:
    """A part that is missing, over this half length."""
    x, y = _grid(len(art.parts))
    inside = _well_inside(x, y)
    part = art.parts == rng.choice(np.unique(art.parts[inside & (art.parts > 1)]))
    middle = rng.choice(x[inside & part])
    return _paint(art.pixels, art.under, part * _cover(np.abs(x - middle) - rng.uniform(*stretch)))


def _scored(
    art: Painting, rng: Generator, colour: RGB, half: float = 0.45, wobble: float = 0.03, rotation: float = np.pi
) -> Array:
    """A line, rotated from vertical by up to `rotation`: a scratch if it is straight, a crack if it wobbles."""
    across, along = _place(rng, art.parts > 0, rotation)
    along = along / (half * rng.uniform(0.7, 1.2))
    waves = [np.sin(k * along + rng.uniform(0, 2 * np.pi)) / np.sqrt(k) for k in (1.5, 4, 9, 17)]
    # A line thinner than a pixel would be invisible in a small image.
    width = np.where(np.abs(along) < 1, np.maximum(0.03 * (1 - along**2), 0.6 / len(along)), -1)
    alpha = _cover(np.abs(across - wobble * np.sum(waves, axis=0)) - width)
    return _paint(art.pixels, colour, 0.9 * alpha * (art.parts > 0))


_DEFECTS: Mapping[str, Callable[[Painting, Generator], Array]] = {
    "broken_end": _chipped,
    "broken_thread": partial(_lost, stretch=(0.25, 0.45)),
    "burn": partial(_stained, colour=(0.10, 0.06, 0.03), alpha=0.9),
    "chipped_edge": _chipped,
    "crack": partial(_scored, colour=(0.18, 0.17, 0.18), half=0.35),
    "hole": _holed,
    "ink": partial(_stained, colour=(0.12, 0.14, 0.30)),
    "missing_part": _lost,
    "rust": partial(_stained, colour=(0.50, 0.24, 0.08)),
    "scratch": partial(_scored, colour=(0.97, 0.97, 0.98), wobble=0.01),
    "solder_splash": partial(_stained, colour=(0.90, 0.90, 0.92), radius=(0.1, 0.16), alpha=0.95),
    "speck": partial(_stained, colour=(0.12, 0.16, 0.10), radius=(0.07, 0.11), alpha=0.9),
    "split": partial(_scored, colour=(0.13, 0.08, 0.05), rotation=0.2),  # runs with the grain
    "stain": partial(_stained, colour=(0.42, 0.30, 0.16)),
}
_PRODUCTS: Mapping[str, tuple[Callable[[Generator, int], Painting], tuple[str, ...]]] = {
    "woven_fabric": (_woven_fabric, ("broken_thread", "hole", "stain")),
    "brushed_steel": (_brushed_steel, ("rust", "scratch")),
    "wood_grain": (_wood_grain, ("hole", "ink", "split")),
    "hex_nut": (_hex_nut, ("chipped_edge", "crack", "rust")),
    "circuit_board": (_circuit_board, ("burn", "missing_part", "solder_splash")),
    "capsule": (_capsule, ("broken_end", "crack", "speck")),
}
TOY_CLASSES: tuple[str, ...] = tuple(_PRODUCTS)  # three textures, then three objects


def _generator(seed: int, *key: str | int) -> Generator:
    # A checksum of the names, because Python's own hash changes from one process to the next.
    words = [zlib.crc32(k.encode()) if isinstance(k, str) else k for k in key]
    return np.random.default_rng([seed, *words])


def _photograph(pixels: Array, rng: Generator) -> NDArray[np.uint8]:
    """Light that falls off to one side, exposure, white balance, sensor noise."""
    x, y = _grid(len(pixels))
    angle, fall = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.12)
    light = rng.uniform(0.92, 1.06) * (1 + fall * (np.cos(angle) * x + np.sin(angle) * y))
    seen = pixels * light[..., None] * rng.uniform(0.98, 1.02, 3)
    noise = rng.uniform(0.008, 0.016) * rng.standard_normal(pixels.shape, np.float32)
    image: NDArray[np.uint8] = (np.clip(seen + noise, 0, 1) * 255 + 0.5).astype(np.uint8)
    return image


def _render(name: str, split: str, index: int, *, seed: int, size: int) -> ToyImage:
    """One image; `split` is `train/good`, `test/good` or `test/KIND`. It depends on nothing but the arguments."""
    key = (name, split, index)
    kind = split.rpartition("/")[2]
    art = _PRODUCTS[name][0](_generator(seed, *key, "product"), size)
    good = _photograph(art.pixels, _generator(seed, *key, "camera"))
    if kind == "good":
        return ToyImage(good, good, np.zeros((size, size), bool))
    for attempt in range(20):
        pixels = _DEFECTS[kind](art, _generator(seed, *key, "flaw", attempt))
        image = _photograph(pixels, _generator(seed, *key, "camera"))
        mask = (np.abs(image.astype(np.int16) - good) > _VISIBLE).any(axis=2)
        if mask.mean() >= _SMALLEST_DEFECT:
            break
    assert mask.any(), f"{key} has no visible defect"
    return ToyImage(np.where(mask[..., None], image, good), good, mask)


def _write(toy: ToyImage, folder: Path, split: str, index: int) -> None:
    files = {f"{split}/{index:03d}.png": toy.image}
    if toy.mask.any():
        files[f"{split.replace('test/', 'ground_truth/')}/{index:03d}_mask.png"] = toy.mask * np.uint8(255)
    for name, array in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(folder / name, compress_level=1)


def _plan(kinds: Sequence[str], train: int, good: int, defect: int) -> Iterator[tuple[str, int]]:
    counts = {"train/good": train, "test/good": good}
    counts |= {f"test/{kind}": len(range(i, defect, len(kinds))) for i, kind in enumerate(kinds)}
    for split, count in counts.items():
        yield from ((split, index) for index in range(count))


def _check_at_least(minimum: int, **arguments: int) -> None:
    for name, value in arguments.items():
        if value < minimum:
            raise InputError(f"{name} is {value}; expected {minimum} or more")


def _checked_classes(classes: Sequence[str] | None) -> list[str]:
    # A single name is also a sequence, of letters.
    names = TOY_CLASSES if classes is None else (classes,) if isinstance(classes, str) else tuple(classes)
    if not names:
        raise InputError(f"classes is empty; expected None for all, or some of {', '.join(TOY_CLASSES)}")
    for name in names:
        if name not in _PRODUCTS:
            hint = did_you_mean(name, TOY_CLASSES)
            raise InputError(f"unknown toy class {name!r}; accepted: {', '.join(TOY_CLASSES)}.{hint}")
    return list(dict.fromkeys(names))


def make_toy_factory(
    root: str | Path,
    *,
    seed: int = 0,
    size: int = 96,
    train: int = 60,
    test_good: int = 12,
    test_defect: int = 12,
    classes: Sequence[str] | None = None,
) -> Path:
    """Writes a generated data set as an MVTec AD tree (CLASS/train/good, CLASS/test/KIND, CLASS/ground_truth/KIND).

    Equal arguments give the same files, bit for bit (with the same versions of NumPy and Pillow). An image does not depend
    on the number of images.

    Args:
        root: Where to write; a folder that is empty or does not exist yet.
        seed: Seed of all random draws; 0 or more.
        size: Side of the square images, in pixels; 32 or more.
        train: Number of training images of each class.
        test_good: Number of good test images of each class.
        test_defect: Number of defective test images of each class, spread evenly over its kinds of defect.
        classes: Which of `TOY_CLASSES` to draw; all by default.

    Returns:
        `root`.

    Raises:
        InputError: A number is too small, a class is unknown, or `root` is not empty.
    """
    root = Path(root)
    _check_at_least(0, seed=seed)
    _check_at_least(32, size=size)
    _check_at_least(1, train=train, test_good=test_good, test_defect=test_defect)
    names = _checked_classes(classes)
    if root.exists() and not (root.is_dir() and not any(root.iterdir())):
        raise InputError(f"{root} is not empty; expected a folder that is empty or does not exist")
    for name in names:
        for split, index in _plan(_PRODUCTS[name][1], train, test_good, test_defect):
            _write(_render(name, split, index, seed=seed, size=size), root / name, split, index)
    return root

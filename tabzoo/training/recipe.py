"""The recipe: every setting of a pre-training run, as one typed dataclass, read from and written to YAML.

Recipes that ship with tabzoo are in `recipes/`, each value with its source. A recipe file may leave fields out, which then
have the defaults below; an unknown field is an error.
"""

import dataclasses
import hashlib
import json
import logging
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml

from tabzoo.compute import Amp
from tabzoo.data.class_words import Spelling
from tabzoo.errors import InputError, did_you_mean
from tabzoo.hub.names import LICENSE
from tabzoo.kinds import check_kind
from tabzoo.strict_yaml import read_yaml
from tabzoo.synthesis import CutPasteSettings, GridMaskSettings, NsaSettings, PerlinSettings, SynthesisName
from tabzoo.synthesis.cutpaste import Variant
from tabzoo.synthesis.mix import check_weights
from tabzoo.synthesis.nsa import Blend
from tabzoo.training.sampling import Sampling

__all__ = ["GROUPS", "NORMALISATION", "Recipe", "changed_fields", "list_recipes", "load_recipe"]

_log = logging.getLogger(__name__)

BatchNorm = Literal["local", "sync", "frozen"]
TextLayout = Literal["rows", "authors"]

# Fields that say where things are or how fast they go, not what is computed: not part of a recipe's hash.
_NOT_HASHED = ("data", "workers", "cache", "cache_dir", "log_every", "save_every")
# Fields that came after recipes were published, with the value at which they change nothing: there they are left out of the
# hash, so that the published hashes stay. And fields that are gone, with the value that all recipes had: these stay in it.
_LATER: dict[str, Any] = {"white_level": None, "text_layout": "rows", "class_words": "words", "interpolation": 1.0}
_GONE: dict[str, Any] = {}
# Fields without effect, accepted for one release, with the value that every recipe now has, and what to say of others.
_UNSUPPORTED: dict[str, tuple[Any, str]] = {
    "nsa_mode": ("exact", "exact is used"),
    "nsa_background": (None, "patches are taken from anywhere in an image"),
    "nsa_background_threshold": (30.0, "it is ignored"),
    "nsa_min_object": (0.25, "it is ignored"),
    "nsa_min_overlap": (0.25, "it is ignored"),
}
# Fields that say where things are on one machine: left out of the recipe in an output folder.
_LOCAL = ("data", "cache_dir", "perlin_textures")
# Fields that may name a file, which the hash takes by its content and an output folder by its name alone.
FILE_FIELDS = ("init", "text_pretrained", "prompts")
NORMALISATION = ("mean", "std")
"""Fields that depend on the backbone: if not given, its own pretrained configuration's."""


@dataclass(frozen=True, kw_only=True)
class MostUsed:
    """The fields that most runs set."""

    data: str | None = None
    """Folder of good images: CLASS/train/good/* (MVTec AD), CLASS/*, or any layout that --layout names."""
    backbone: str = "resnet18.tv_in1k"
    """Any timm CNN, with its tag."""
    init: str = "pretrained"
    """Initial weights: pretrained (timm's), random, or FILE (.safetensors, or a state dict by torch.save)."""
    objective: Literal["tab", "joint", "ranking"] = "tab"
    """tab: Algorithm 1, classes against classes; joint: normal and abnormal texts of all classes in one softmax; ranking, ours:
    synthetic anomalies get higher detector scores than good images of their class, without texts."""
    synthesis: SynthesisName = "nsa"
    """How a normal image becomes abnormal; mix draws one of the other methods for each image."""
    epochs: int = 200
    """Passes over the images."""
    batch_size: int = 512
    """Normal images a step; as many synthetic anomalies come with them."""
    lr: float = 1e-4
    """Highest learning rate."""
    seed: int = 0
    """Seed of everything random."""
    license: str = "unspecified"
    """Licence of the weights, an SPDX identifier; the licence of the training images decides it."""


@dataclass(frozen=True, kw_only=True)
class Images:
    """Which images, and what the backbone sees of them."""

    layout: str = "auto"
    """Folder layout; auto detects it."""
    class_names: dict[str, str] = field(default_factory=dict)
    """Folder name and the words for it in prompts, e.g. --class-names 01 "casting plate"."""
    class_words: Spelling = "words"
    """Where --class-names has no words: words made of the folder's name (metal nut), or the name as it is, as in the authors'
    code (folder: metal_nut)."""
    resize: int = 256
    """Images are squashed to this square, in px."""
    crop: int = 224
    """Centre crop that the backbone sees, in px."""
    white_level: float | None = None
    """Pixel value that becomes white in grey images of more than 8 bits; if not given, the largest of the file's bits, or 1
    for floats."""
    mean: tuple[float, float, float] | None = None
    """Mean of the normalisation, RGB in [0, 1]; that of the backbone's own pretrained configuration if not given."""
    std: tuple[float, float, float] | None = None
    """Standard deviation of the normalisation, RGB in [0, 1]; the backbone's own if not given."""
    sampling: Sampling = "uniform"
    """Every image equally often, or every class. sequential: nothing is shuffled, one class after another, as in the authors'
    code; a batch then holds one class, or two where one class ends and the next begins."""
    repeats: int = 1
    """Times that an image is used in an epoch, each time with another anomaly."""
    val_share: float = 0.0
    """Fraction of every class's normal images held out; loss and accuracies on them are written each epoch."""


@dataclass(frozen=True, kw_only=True)
class Texts:
    """Texts and the text tower."""

    text_model: str = "ViT-B-16"
    """open_clip model whose text tower is used, frozen."""
    text_pretrained: str = "laion400m_e32"
    """open_clip weights tag, a checkpoint FILE, a text_features.safetensors FILE, or untrained (for trying things out)."""
    prompts: str = "tab"
    """Prompt set: tab (the paper's), authors (their code's), or FILE.yaml."""
    text_layout: TextLayout = "rows"
    """rows: each class is compared with its own texts; authors: the texts of all classes are mixed up, as in the authors'
    code, which reshapes where it should transpose."""


@dataclass(frozen=True, kw_only=True)
class Loss:
    """Similarities and loss."""

    reduction: Literal["mean", "sum"] = "mean"
    """Mean (Algorithm 1) or sum (the authors' code) of the normal and the abnormal loss."""
    temperature: float = 1 / 0.07
    """Factor on the cosine similarities."""
    learn_temperature: bool = False
    """Train the factor too."""
    projection: Literal["none", "linear", "residual"] = "none"
    """Head between embedding and text space, discarded at the end: one linear map, or the authors' two MLPs."""


@dataclass(frozen=True, kw_only=True)
class Anomalies:
    """How normal images become abnormal."""

    mix_weights: dict[str, float] = field(default_factory=dict)
    """mix: relative weights of the methods, e.g. --mix-weights nsa 2 perlin 1; equal for all if not given."""
    nsa_gamma_shape: float = NsaSettings.gamma_shape
    """NSA: shape of the gamma distribution of a patch's half-width."""
    nsa_gamma_scale: float = NsaSettings.gamma_scale
    """NSA: scale of that distribution, as a fraction of the image side."""
    nsa_gamma_lower: float = NsaSettings.gamma_lower
    """NSA: offset of that distribution, as a fraction of the image side."""
    nsa_width_min: float = NsaSettings.width_min
    """NSA: smallest half-width, as a fraction of the image side."""
    nsa_width_max: float = NsaSettings.width_max
    """NSA: largest half-width, as a fraction of the image side."""
    nsa_resize: bool = NsaSettings.resize
    """NSA: resize the patch before it is blended in."""
    nsa_resize_min: float = NsaSettings.resize_min
    """NSA: smallest resize factor."""
    nsa_resize_max: float = NsaSettings.resize_max
    """NSA: largest resize factor."""
    nsa_resize_std: float = NsaSettings.resize_std
    """NSA: standard deviation of the resize factor, whose distribution is normal around 1."""
    nsa_shift: bool = NsaSettings.shift
    """NSA: paste the patch at a random place, not where it was cut."""
    nsa_same_source: bool = NsaSettings.same_source
    """NSA: cut the patch from the image itself."""
    nsa_num_patches: int = NsaSettings.num_patches
    """NSA: largest number of patches in an image; each after the first is used with probability 1/2."""
    nsa_blend: Blend = NsaSettings.blend
    """NSA: Poisson blending with the patch's gradients (normal), the stronger ones (mixed), or either at random (mix)."""
    cutpaste_variant: Variant = CutPasteSettings.variant
    """CutPaste: a rectangle (patch), a thin rotated strip (scar), or one of the two at random (union)."""
    perlin_textures: str | None = None
    """Perlin: folder of texture images, CLASS/* or plain; images of other classes if not given."""
    perlin_threshold: float = PerlinSettings.threshold
    """Perlin: the image becomes abnormal where the noise is above this value."""
    perlin_beta_max: float = PerlinSettings.beta_max
    """Perlin: largest weight of the image under the texture."""
    mask_block: int = GridMaskSettings.block
    """Mask: side of a masked block, in px."""
    mask_num_blocks: int = GridMaskSettings.num_blocks
    """Mask: number of masked blocks."""


@dataclass(frozen=True, kw_only=True)
class Optimisation:
    """Steps of the weights."""

    micro_batch: int = 0
    """Images at a time on the device; their gradients are added up, and batch-norm sees this many. 0: the whole batch."""
    batch_norm: BatchNorm = "local"
    """Statistics of batch-norm in training: local, of the images at once on a device; sync, over all GPUs; frozen, the
    initial weights'. local and sync compute them anew from your images. That alone, with nothing trained, cost classes that
    were not among the images 3.5 points of image AUROC in one trial and 2.4 of AUPRO in another (EfficientNet-Lite0)."""
    optimizer: str = "sgd"
    """sgd, or any optimizer of timm by its name."""
    momentum: float = 0.9
    """Momentum of sgd."""
    weight_decay: float = 0.0
    """Weight decay."""
    schedule: Literal["constant", "cosine", "cosine_authors"] = "cosine"
    """cosine falls to 0 over the run; cosine_authors steps once an epoch with steps per epoch as its period."""
    warmup_epochs: float = 0.0
    """Linear warm-up of the learning rate."""
    interpolation: float = 1.0
    """ranking: the weights that are written are the initial ones and this fraction of their change in training."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Speed, caches and logs; of these, only amp changes the result."""

    amp: Amp = "off"
    """Automatic mixed precision; auto is bf16 where the device computes it natively, else off."""
    channels_last: bool = False
    """Memory layout NHWC: faster with amp."""
    compile: bool = False
    """torch.compile the backbone."""
    workers: int | None = None
    """Processes that decode images; one for each core if not given."""
    cache: Literal["disk", "ram", "device", "off"] = "disk"
    """Where decoded images are kept; off decodes them each time."""
    cache_dir: str | None = None
    """Folder of the disk cache; the user cache folder if not given."""
    save_every: int = 500
    """Steps between checkpoints."""
    log_every: int = 10
    """Steps between rows of metrics.jsonl."""


@dataclass(frozen=True, kw_only=True)
class Removed:
    """No longer supported: accepted with a warning for one release."""

    # After that, they move to _GONE.
    nsa_mode: Literal["exact", "fast"] = "exact"
    """No longer supported: exact is used."""
    nsa_background: float | None = None
    """No longer supported, ignored."""
    nsa_background_threshold: float = 30.0
    """No longer supported, ignored."""
    nsa_min_object: float = 0.25
    """No longer supported, ignored."""
    nsa_min_overlap: float = 0.25
    """No longer supported, ignored."""


@dataclass(frozen=True, kw_only=True)
class Recipe(Removed, Machine, Optimisation, Anomalies, Loss, Texts, Images, MostUsed):
    """Settings of one pre-training run: the fields of all groups. Their docstrings are the command line's help."""

    # A dataclass takes the fields of its bases from the last to the first.

    def __post_init__(self) -> None:
        _check_types(self)
        _check_values(self)
        _reset_unsupported(self)

    def replace(self, **changes: Any) -> "Recipe":
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    @property
    def normalisation(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """Mean and standard deviation, once `resolve_normalisation` has filled them in."""
        assert self.mean is not None, "mean is not resolved"
        assert self.std is not None, "std is not resolved"
        return self.mean, self.std

    @property
    def needs_texts(self) -> bool:
        """Whether the objective compares images with texts."""
        return self.objective != "ranking"

    def identity(self) -> dict[str, Any]:
        """What decides the result: paths, workers, cache and logging are left out, files go by their content's SHA-256."""
        values = {key: value for key, value in dataclasses.asdict(self).items() if key not in _NOT_HASHED} | _GONE
        for key, neutral in _LATER.items():
            if values[key] == neutral:
                del values[key]
        values["perlin_textures"] = self.perlin_textures and Path(self.perlin_textures).name
        for key in FILE_FIELDS:
            if _names_file(values[key]):
                values[key] = hashlib.sha256(Path(values[key]).read_bytes()).hexdigest()
        return values

    def digest(self) -> str:
        """SHA-256 of `identity`, in hex."""
        return hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()

    def to_yaml(self) -> str:
        """The recipe as YAML, without paths: files by their name, data and cache folder left out.

        Fields of `_LATER` are left out while they change nothing, so that older versions can read it.
        """
        values = {
            key: value
            for key, value in dataclasses.asdict(self).items()
            if key not in (*_LOCAL, *_UNSUPPORTED) and not (key in _LATER and value == _LATER[key])
        }
        for key in FILE_FIELDS:
            if _names_file(values[key]):
                values[key] = Path(values[key]).name
        values = {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
        return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


GROUPS: tuple[type, ...] = Recipe.__bases__[::-1]
"""The groups of a recipe's fields, the most used first."""


def changed_fields(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Fields in which two recipes' `identity` differ, each with its value before and now."""
    before, now = _LATER | dict(before), _LATER | dict(now)
    values = {name: (before.get(name), now.get(name)) for name in before | now}
    return {name: (was, is_now) for name, (was, is_now) in values.items() if was != is_now}


def list_recipes() -> list[str]:
    """Names of the recipes that ship with tabzoo."""
    folder = resources.files("tabzoo.training").joinpath("recipes")
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_recipe(name: str) -> Recipe:
    """A recipe by name, or from a YAML file; files that it names are relative to its folder.

    Raises:
        InputError: No such recipe, not valid YAML, an unknown field or an invalid value.
    """
    if name in list_recipes():
        text = resources.files("tabzoo.training").joinpath("recipes", f"{name}.yaml").read_text(encoding="utf-8")
        return _parse(text, name)
    path = Path(name)
    if not path.is_file():
        known = list_recipes()
        raise InputError(
            f"--recipe {name}: neither a recipe of tabzoo ({', '.join(known)}) nor an existing YAML file."
            f"{did_you_mean(name, known)}"
        )
    try:
        recipe = _parse(path.read_text(encoding="utf-8"), name)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--recipe {name}: can't be read: {error}") from error
    relative = {key: str(path.parent / getattr(recipe, key)) for key in FILE_FIELDS}
    return recipe.replace(**{key: file for key, file in relative.items() if _names_file(file)})


def _parse(text: str, name: str) -> Recipe:
    try:
        values = read_yaml(text) or {}
    except ValueError as error:
        raise InputError(f"--recipe {name}: not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f"--recipe {name}: expected 'field: value' lines; got a {type(values).__name__}")
    known = [entry.name for entry in dataclasses.fields(Recipe)]
    for key in values:
        if key not in known:
            hint = did_you_mean(key, known) or f" Known fields: {', '.join(known)}."
            raise InputError(f"--recipe {name}: unknown field '{key}'.{hint}")
    try:
        return Recipe(**{key: _from_yaml(key, value) for key, value in values.items()})
    except InputError as error:
        raise InputError(f"--recipe {name}: {error}") from error


def _names_file(value: str) -> bool:
    # Only with an ending: a stray file called "tab" or "random" does not change what these words mean.
    return Path(value).suffix != "" and Path(value).is_file()


def _from_yaml(key: str, value: Any) -> Any:
    """Undoes what YAML 1.1 makes of a plain `1e-4` (a text), `off` (false) and a tuple (a list)."""
    kind = typing.get_type_hints(Recipe)[key]
    if kind is float and isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    if value is False and "off" in typing.get_args(kind):
        return "off"
    return tuple(value) if isinstance(value, list) else value


def _check_types(recipe: Recipe) -> None:
    """YAML gives whatever was typed; the annotations say what it should be."""
    for name, kind in typing.get_type_hints(Recipe).items():
        value = getattr(recipe, name)
        check_kind(name, value, kind)
        if value is not None and kind in (float, float | None):
            object.__setattr__(recipe, name, float(value))
        elif isinstance(value, tuple):  # the hash tells 0 from 0.0
            object.__setattr__(recipe, name, tuple(map(float, value)))


def _reset_unsupported(recipe: Recipe) -> None:
    for name, (value, instead) in _UNSUPPORTED.items():
        if (given := getattr(recipe, name)) != value:
            _log.warning("%s: %s is no longer supported; %s.", name, given, instead)
            object.__setattr__(recipe, name, value)


# Least and largest value of each number; some of the largest only catch typing errors.
_BOUNDS: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("epochs", "save_every", "log_every"), (1, 10**9)),
    **dict.fromkeys(("resize", "crop"), (1, 16_384)),
    **{"repeats": (1, 10_000), "batch_size": (2, 10**9), "micro_batch": (0, 10**9)},
    **dict.fromkeys(("lr", "weight_decay"), (0, 10_000)),
    **{"momentum": (0, 1), "warmup_epochs": (0, 10**9), "workers": (0, 4096)},
    # torch's generator takes 64 bits of seed times step times processes.
    "seed": (0, 2**32 - 1),
}


def _check_values(recipe: Recipe) -> None:
    for name, (least, most) in _BOUNDS.items():
        value = getattr(recipe, name)
        if value is not None and not least <= value <= most:
            bound = f"at most {most}" if value > most else f"at least {least}"
            raise InputError(f"{name}: {value} given, expected {bound}")
    for name, value in vars(recipe).items():
        if isinstance(value, str) and "\0" in value:
            raise InputError(f"{name}: {value!r} given, expected a string without the character NUL")
    for name in ("data", "cache_dir", "perlin_textures"):
        if getattr(recipe, name) == "":  # would mean the current folder
            raise InputError(f"{name}: '' given, expected a folder")
    if not LICENSE.fullmatch(recipe.license):
        raise InputError(
            f"license: {recipe.license!r} given, expected an SPDX identifier, such as apache-2.0, or LicenseRef-NAME"
        )
    if recipe.mix_weights:
        check_weights(recipe.mix_weights)
    if recipe.crop > recipe.resize:
        raise InputError(
            f"crop: {recipe.crop} given, but images are resized to {recipe.resize}; lower crop or raise resize"
        )
    if not 0 <= recipe.val_share < 1:
        raise InputError(f"val_share: {recipe.val_share} given, expected a fraction from 0 to below 1")
    if not 0 < recipe.interpolation <= 1:
        raise InputError(f"interpolation: {recipe.interpolation} given, expected a fraction above 0, at most 1")
    if recipe.interpolation != 1 and recipe.objective != "ranking":
        raise InputError(
            f"interpolation: {recipe.interpolation} given, expected 1 with objective {recipe.objective}: only ranking keeps "
            f"the initial weights"
        )
    if not 0 < recipe.temperature <= 10_000:
        raise InputError(f"temperature: {recipe.temperature} given, expected a factor above 0, at most 10000")
    if not all(0 <= value <= 1 for value in recipe.mean or ()):
        raise InputError(f"mean: {recipe.mean} given, expected numbers from 0 to 1: pixels are divided by 255 first")
    if not all(0.001 <= value <= 1 for value in recipe.std or ()):
        raise InputError(f"std: {recipe.std} given, expected numbers above 0, from 0.001 to 1")
    if recipe.white_level is not None and not 0 < recipe.white_level < float("inf"):
        raise InputError(f"white_level: {recipe.white_level} given, expected a pixel value above 0")
    if recipe.objective == "ranking":
        _check_ranking(recipe)
    if recipe.warmup_epochs > recipe.epochs:
        raise InputError(f"warmup_epochs: {recipe.warmup_epochs} given, more than epochs ({recipe.epochs})")


def _check_ranking(recipe: Recipe) -> None:
    """What the objective `ranking` can't work with; the words fit a flag and a field of a recipe."""
    for name, wanted, why in (
        ("batch_norm", "frozen", "it holds features near the initial weights' ones"),
        ("micro_batch", 0, "it compares the images of a batch with each other"),
        ("compile", False, "it reads maps, not the backbone's output"),
    ):
        if getattr(recipe, name) != wanted:
            raise InputError(
                f"{name}: {getattr(recipe, name)} given, expected {wanted} with objective ranking: {why}. The recipe "
                f"tf_efficientnet_lite0.ranking has settings that work."
            )

"""A folder of weights: a Hub repository in waiting, which `timm.create_model("local-dir:DIR", pretrained=True)` loads.

`model.safetensors` and `config.json` are timm's Hub format, `tabzoo.json` the record (name, SHA-256 and size of the
weights, licence, where they come from), `README.md` a model card.
"""

import datetime
import errno
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import PretrainedCfg
from torch import Tensor, nn

from tabzoo._version import __version__
from tabzoo.hub.files import Digest
from tabzoo.hub.folders import CARD, CONFIG, RECORD, WEIGHTS
from tabzoo.plain import plain_json

__all__ = ["load_line", "now", "timm_config", "write_folder", "write_json"]


def timm_config(
    backbone: nn.Module,
    *,
    license: str,
    description: str,
    resize: int = 256,
    crop: int = 224,
    mean: tuple[float, float, float] = IMAGENET_DEFAULT_MEAN,
    std: tuple[float, float, float] = IMAGENET_DEFAULT_STD,
) -> dict[str, Any]:
    """timm's Hub format. Evaluation is timm's own: squash to crop / crop_pct by Lanczos, centre crop, normalise.

    Args:
        backbone: A timm model without classifier.
        license: Of the weights.
        description: How they came to be.
        resize: Side of the squashed image, in pixels.
        crop: Side of the model's input, in pixels.
        mean: Of the normalisation, ImageNet's by default.
        std: Of the normalisation, ImageNet's by default.
    """
    given: dict[str, Any] = backbone.pretrained_cfg  # type: ignore[assignment]
    kept = {key: given[key] for key in ("first_conv", "classifier") if key in given}
    pool, side = given.get("pool_size"), given["input_size"][-1]
    source = PretrainedCfg(
        **kept,
        architecture=given["architecture"],
        input_size=(3, crop, crop),
        pool_size=tuple(round(extent * crop / side) for extent in pool) if pool else None,
        crop_pct=crop / resize,
        crop_mode="squash",
        interpolation="lanczos",
        mean=mean,
        std=std,
        num_classes=0,
        license=license,
        description=description,
        paper_name="TAB: Text-Align Anomaly Backbone Model for Industrial Inspection Tasks",
        paper_ids="arXiv:2312.09480",
    )
    return {
        "architecture": given["architecture"],
        "num_classes": 0,
        "num_features": getattr(backbone, "num_features", None),
        "pretrained_cfg": source.to_dict(remove_source=True),
    }


def write_folder(
    folder: Path,
    weights: Mapping[str, Tensor],
    config: Mapping[str, Any],
    *,
    name: str,
    provenance: Mapping[str, Any],
    made_by: str,
    facts: str,
) -> None:
    """Writes weights, configuration, model card and record; `tabzoo.json`, the mark of a whole folder, last.

    Args:
        folder: An existing folder.
        weights: Tensors by timm's names.
        config: What `timm_config` gives.
        name: timm name with tag.
        provenance: For the record: where the weights come from.
        made_by: The card's first sentence goes on with this, after "A backbone for industrial visual inspection, ".
        facts: The rest of the card, Markdown.

    Raises:
        OSError: A file can't be written; it names the file.
    """
    tensors = {key: value.detach().cpu().contiguous() for key, value in weights.items()}
    # One metadata entry alone: several are written in any order, and equal weights should make equal files.
    try:
        save_file(tensors, str(folder / WEIGHTS), metadata={"format": "pt"})
    except SafetensorError as error:  # which tells of the system's error in its text alone
        code = re.search(r"(?:os error|code:) (\d+)", str(error))
        number = int(code[1]) if code else errno.EIO
        raise OSError(number, os.strerror(number), str(folder / WEIGHTS)) from error
    write_json(folder / CONFIG, config)
    license = config["pretrained_cfg"]["license"]
    record = {
        "name": name,
        "weights": {"file": WEIGHTS, **Digest.of(folder / WEIGHTS)._asdict()},
        "license": license,
        **provenance,
        "tabzoo_version": __version__,
        "created": now(),
    }
    card = f"""---
library_name: timm
license: {license if license != "unspecified" else "other"}
tags: [image-feature-extraction, anomaly-detection, industrial-inspection, timm, tabzoo]
---
# {name}

A backbone for industrial visual inspection, {made_by}

```python
import timm
{load_line("local-dir:FOLDER")}  # FOLDER: where this file lies
```

{facts}"""
    (folder / CARD).write_text(card, encoding="utf-8")
    write_json(folder / RECORD, record)


def load_line(source: str) -> str:
    """The line of Python that loads such a folder, for cards and messages."""
    return f'model = timm.create_model("{source}", pretrained=True, features_only=True)'


def now() -> str:
    """The time in ISO format, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a file that is whole or not there.

    Raises:
        OSError: It can't be written.
    """
    temporary = path.with_suffix(".tmp")
    try:
        temporary.write_text(plain_json(content) + "\n", encoding="utf-8")
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise

"""Licences of weights: what they allow, in words, and which of them the training images forbid."""

import re
from collections.abc import Mapping
from typing import Any

from tabzoo.errors import InputError
from tabzoo.hub.table import find_weights
from tabzoo.mvtec_ad import IMAGES

__all__ = ["MVTEC_LICENSE", "check_license", "explain_license", "is_noncommercial", "mvtec_classes"]

MVTEC_LICENSE = "cc-by-nc-sa-4.0"
"""Of MVTec AD's images."""

_NAME_AUTHORS = "name the authors"
_SAME = "share changed weights under the same licence"
_TERMS = {
    "apache-2.0": "commercial use is allowed; keep the licence and its notices",
    "mit": "commercial use is allowed; keep the copyright notice",
    "bsd-3-clause": "commercial use is allowed; keep the copyright notice",
    "cc0-1.0": "any use is allowed",
    "cc-by-4.0": f"commercial use is allowed; {_NAME_AUTHORS}",
    "cc-by-sa-4.0": f"commercial use is allowed; {_NAME_AUTHORS}, and {_SAME}",
    "cc-by-nc-4.0": f"no commercial use; {_NAME_AUTHORS}",
    "cc-by-nc-sa-4.0": f"no commercial use; {_NAME_AUTHORS}, and {_SAME}",
    "other": "no single licence: see the licences of the training images",
    "unspecified": "not stated: ask whoever made the weights; `tabzoo publish --license` states one",
}


def explain_license(license: str) -> str:
    """What a licence allows, in a few words; where its name does not tell, where to read it."""
    if terms := _TERMS.get(license.lower()):
        return terms
    if is_noncommercial(license):
        return "no commercial use; read its text for the rest"
    if license.lower().startswith("licenseref-"):
        return "a licence of its makers' own: ask them for its text"
    return "read its text; https://spdx.org/licenses lists licences by their identifiers"


def is_noncommercial(license: str | None) -> bool:
    """Whether a licence says by its name that weights may not be used commercially, as cc-by-nc-4.0 does.

    Of several with OR between them, which leave the choice to the user, all have to say so.
    """
    choices = re.split(r"(?i)\bor\b", license or "")
    return all(re.search(r"(?i)(?:\b|_)nc(?:\b|_)|non-?commercial|research", choice) for choice in choices)


def mvtec_classes(counts: Mapping[str, int]) -> list[str]:
    """The classes that are MVTec AD's, judged by name and number of good training images.

    Args:
        counts: Class to number of its good training images.
    """
    return [name for name, number in counts.items() if name in IMAGES and number == IMAGES[name][0]]


def check_license(license: str, record: Mapping[str, Any]) -> None:
    """Checks that weights do not lose the non-commercial licence of their training images.

    Args:
        license: That they are to have.
        record: The content of tabzoo.json, or as much of it as there is: `name`, `training`.

    Raises:
        InputError: They were trained on images of MVTec AD, and the licence allows commercial use or does not say.
    """
    if is_noncommercial(license):
        return
    training = record.get("training")
    counts = training.get("classes") if isinstance(training, dict) else None
    known = find_weights(str(record.get("name")))
    if isinstance(counts, dict):
        images = ", ".join(mvtec_classes(counts))
        from_images = f"images of MVTec AD ({images})" if images else ""
    else:  # a converted checkpoint: its name tells
        from_images = known.training_data if known and is_noncommercial(known.license) else ""
    if from_images:
        raise InputError(
            f"licence {license}: the weights were trained on {from_images}, which allow no commercial use. Type "
            f"--license {MVTEC_LICENSE}, or another licence for non-commercial use that these images allow."
        )

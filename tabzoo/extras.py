"""How to install an extra, in the words that fit how tabzoo was installed."""

import json
from functools import cache
from importlib import metadata

__all__ = ["how_to_install"]


def how_to_install(extra: str) -> str:
    """What to type for the packages of an extra, for the end of a message.

    An installed tabzoo is enough for pip, which reads the extra's packages in it and looks for tabzoo nowhere else. In a
    clone they are read anew, since pyproject.toml may be newer than what was installed.
    """
    if _is_installed():
        return f'pip install "tabzoo[{extra}]"'
    return f'pip install -e ".[{extra}]" in the clone of tabzoo'


@cache
def _is_installed() -> bool:
    """Whether pip installed a copy of tabzoo, and not a link to a clone."""
    installed = False
    # There may be two: in a clone, the folder tabzoo.egg-info, which says nothing, comes first.
    for found in metadata.distributions(name="tabzoo"):
        if _is_editable(found.read_text("direct_url.json")):
            return False
        installed |= found.read_text("RECORD") is not None
    return installed


def _is_editable(direct_url: str | None) -> bool:
    try:  # PEP 610
        return bool(json.loads(direct_url or "{}")["dir_info"]["editable"])
    except (ValueError, LookupError, TypeError):
        return False

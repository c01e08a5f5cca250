"""What tabzoo asks of the Hugging Face Hub: at present only whether a file can be had, and that quickly."""

import os
from collections.abc import Sequence
from pathlib import Path

from tabzoo.errors import WeightsError, brief

__all__ = ["REACH_SECONDS", "local_copy"]

REACH_SECONDS = 8.0
"""How long the Hub may take to answer before it counts as unreachable."""


def local_copy(repository: str, filenames: Sequence[str]) -> Path | None:
    """The cached copy of a Hub file when the Hub does not answer; None when it does, so that a library may fetch it.

    The libraries' own way tries each request six times and takes 50 s to fail on a machine without a network; one
    request to the Hub tells the same within `REACH_SECONDS`.

    Args:
        repository: Hub repository, "organisation/name".
        filenames: The names the file may have, the preferred one first.

    Raises:
        WeightsError: The Hub does not answer and no copy is cached; the text is the cause, in a few words.
    """
    cause = _unreachable_because()
    if cause is None:
        return None
    from huggingface_hub import try_to_load_from_cache

    for filename in filenames:
        cached = try_to_load_from_cache(repository, filename)
        if isinstance(cached, str):
            return Path(cached)
    raise WeightsError(f"{cause}, and the Hub cache holds no copy of {repository} ({' or '.join(filenames)})")


def _unreachable_because() -> str | None:
    """Why the Hub can't be reached, or None when it answers."""
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    endpoint = os.environ.get("HF_ENDPOINT", constants.ENDPOINT)
    try:
        # Any answer will do, an error status too: it shows that the way there is open.
        get_session().head(endpoint, timeout=REACH_SECONDS)
    except Exception as error:  # requests' or httpx's own errors, by the version of huggingface_hub
        return f"{endpoint} does not answer ({brief(error)})"
    return None

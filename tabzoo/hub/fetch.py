"""Files of a Hub repository at one commit, in huggingface_hub's cache; whatever goes wrong is told with its way out.

Only names known beforehand are asked for, a record, a configuration and a .safetensors file, never what a repository
lists; so nothing that it holds besides can reach this machine.
"""

import logging
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tabzoo.errors import WeightsError, brief
from tabzoo.hub.config import LARGEST_JSON
from tabzoo.hub.files import Digest, full_disk
from tabzoo.hub.folders import CONFIG, RECORD, WEIGHTS, Folder, read_folder, read_record
from tabzoo.hub.reach import REACH_SECONDS, endpoint, silence_of, within

__all__ = ["COMMIT", "Fetched", "NoSuchFileError", "Repository"]

_log = logging.getLogger(__name__)

COMMIT = re.compile("[0-9a-f]{40}")
"""What a commit looks like, as opposed to a branch or a tag."""


class NoSuchFileError(WeightsError):
    """The repository is there, and the commit; the file is not."""


class _UnreachableError(WeightsError):
    """Nothing answers: a copy in the cache may serve."""


class Fetched(NamedTuple):
    """A folder in the cache, all of one commit."""

    folder: Folder
    commit: str


@dataclass(frozen=True)
class Repository:
    """A Hub repository at a commit, or at a branch or tag.

    Attributes:
        id: "organisation/name".
        revision: 40 hexadecimal digits, or a name that may come to mean another commit.
        cache_dir: Where huggingface_hub keeps files; None for its own choice.
    """

    id: str
    revision: str
    cache_dir: Path | None = None

    def fetch_folder(self, *, also: Sequence[str] = ()) -> Fetched:
        """Record, configuration and weights, the weights as the repository's own record says.

        Args:
            also: More files, where the repository has them.

        Raises:
            WeightsError: One of them can't be had or is not what it should be.
        """
        record = self.fetch(RECORD)
        # The cache keeps the files of a commit in a folder of that name: from here on, one commit.
        pinned = Repository(self.id, record.parent.name, self.cache_dir)
        pinned.fetch(CONFIG)
        for filename in also:
            with suppress(NoSuchFileError):
                pinned.fetch(filename)
        pinned.fetch_weights(read_record(record).digest)
        return Fetched(read_folder(record.parent), pinned.revision)

    def fetch_weights(self, expected: Digest) -> Path:
        """The weights file, known by its digest; a bad copy is removed and fetched once more.

        Raises:
            WeightsError: It can't be had, or what comes is another file, twice.
        """
        for _ in range(2):
            path = self.fetch(WEIGHTS, expected)
            found = Digest.of(path)
            if found == expected:
                return path
            _log.warning("%s: a copy with SHA-256 %s instead of %s is removed", self, found.sha256, expected.sha256)
            path.resolve().unlink(missing_ok=True)  # the cache's snapshots are links
            path.unlink(missing_ok=True)
        raise WeightsError(
            f"{self}: {WEIGHTS} was downloaded twice with a wrong checksum (SHA-256 {found.sha256}, expected "
            f"{expected.sha256}) and was removed. Something on the way changes it: try without the proxy or mirror "
            f"({endpoint()}), and tell the project if that does not help."
        )

    def fetch(self, filename: str, expected: Digest | None = None) -> Path:
        """One file; the cached one without any request where the revision is a commit.

        Args:
            filename: Its name.
            expected: What it is known to be; a file announced as another is refused before it is read. None for a small
                file.

        Raises:
            NoSuchFileError: The repository lacks it.
            WeightsError: It can't be had.
        """
        found = try_to_load_from_cache(self.id, filename, cache_dir=self.cache_dir, revision=self.revision)
        cached = Path(found) if isinstance(found, str) else None
        if cached and COMMIT.fullmatch(self.revision):
            return cached
        try:
            self._look(filename, expected)
        except _UnreachableError:
            if cached:
                return cached
            raise
        try:
            path = hf_hub_download(
                self.id,
                filename,
                revision=self.revision,
                cache_dir=self.cache_dir,
                endpoint=endpoint(),
                etag_timeout=REACH_SECONDS,
            )
        except LocalEntryNotFoundError as error:
            raise self._unreachable(filename, f"{endpoint()} does not answer any more") from error
        except HfHubHTTPError as error:
            raise self._refusal(filename, error) from error
        except Exception as error:  # the network's errors by huggingface_hub's version, the disk's, xet's
            cause, way_out = brief(error), "Try again"
            if full := full_disk(error):
                cause = f"{self.cache_dir or constants.HF_HUB_CACHE} can't be written to: {full}"
                way_out = "Make room there or name another folder: --cache-dir, or HF_HOME"
            raise WeightsError(
                f"{self}: {filename} did not arrive whole: {cause}. {way_out}; what has arrived is kept."
            ) from error
        return Path(path)

    def _look(self, filename: str, expected: Digest | None) -> None:
        """One request tells nearly everything that can go wrong; huggingface_hub's own way tries on, and blames the line."""
        if constants.HF_HUB_OFFLINE:
            raise self._unreachable(filename, "HF_HUB_OFFLINE is set")
        url = hf_hub_url(self.id, filename, revision=self.revision, endpoint=endpoint())
        try:
            metadata = within(REACH_SECONDS, lambda: get_hf_file_metadata(url, timeout=REACH_SECONDS))
        except HfHubHTTPError as error:
            raise self._refusal(filename, error) from error
        except Exception as error:  # requests' or httpx's own, by the version of huggingface_hub
            raise self._unreachable(filename, f"{endpoint()} does not answer ({brief(error)})") from error
        if metadata.commit_hash is None or metadata.etag is None:
            raise WeightsError(
                f"{self}: {filename}: what answers at {endpoint()} is no Hub (a proxy or a login page?). Check HF_ENDPOINT "
                f"and the proxy settings."
            )
        if COMMIT.fullmatch(self.revision) and metadata.commit_hash != self.revision:
            raise WeightsError(f"{self}: {endpoint()} answers with another commit, {metadata.commit_hash}")
        self._check_announced(filename, expected, metadata.etag, metadata.size)
        if urlsplit(metadata.location).netloc not in ("", urlsplit(endpoint()).netloc):
            silence = silence_of(metadata.location.split("?")[0])
            if silence:
                raise self._unreachable(filename, f"the Hub answers, but where it keeps large files {silence}")

    def _check_announced(self, filename: str, expected: Digest | None, etag: str, size: int | None) -> None:
        if expected is None:
            if size is not None and size > LARGEST_JSON:
                raise WeightsError(
                    f"{self}: {filename} is said to have {size:,} bytes, which no such file has; not read"
                )
        elif size not in (None, expected.size):
            raise WeightsError(
                f"{self}: {filename} is said to have {size:,} bytes where {expected.size:,} are expected; not read"
            )
        elif re.fullmatch("[0-9a-f]{64}", etag) and etag != expected.sha256:  # of large files, the SHA-256
            raise WeightsError(
                f"{self}: {filename} is said to have the SHA-256 {etag} where {expected.sha256} is expected; not read"
            )

    def _refusal(self, filename: str, error: HfHubHTTPError) -> WeightsError:
        """What the Hub says no with, in our words."""
        page = f"{endpoint()}/{self.id}"
        match error:
            case GatedRepoError():
                cause = f"the repository is gated. Ask for access on {page}, then log in: `hf auth login`, or HF_TOKEN"
            case RepositoryNotFoundError():
                cause = (
                    f"{endpoint()} knows no such repository, or keeps it private. Check the name; for a private one log "
                    f"in: `hf auth login`, or HF_TOKEN"
                )
            case RevisionNotFoundError():
                cause = "the repository has no such revision. Check what follows the @, or update tabzoo"
            case EntryNotFoundError():
                return NoSuchFileError(
                    f"{self}: {filename} can't be fetched: the repository has no such file at this revision. tabzoo loads "
                    f"{WEIGHTS} with its {RECORD}, never a pickle; look at {page}."
                )
            case _:
                cause = f"{endpoint()} answers {brief(error)}. Try again later, or a mirror (HF_ENDPOINT)"
        return WeightsError(f"{self}: {filename} can't be fetched: {cause}.")

    def _unreachable(self, filename: str, cause: str) -> WeightsError:
        return _UnreachableError(
            f"{self}: {filename} can't be fetched: {cause}, and the Hub cache holds no copy. Ways out:\n"
            f"  a proxy or a mirror:  set HTTPS_PROXY, or HF_ENDPOINT\n"
            f"  no network here:      where there is one, `tabzoo download NAME --to DIR`; copy DIR; `tabzoo install NAME DIR`"
        )

    def __str__(self) -> str:
        return f"{self.id}@{self.revision}"

"""The Hub: whether it answers, and files of a repository at one commit; every error says what to do.

Only files with known names are fetched (a record, a configuration, a .safetensors file), never those that a repository
lists. So nothing else in a repository can reach this machine.
"""

import errno
import logging
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from huggingface_hub import (
    constants,
    get_hf_file_metadata,
    get_session,
    hf_hub_download,
    hf_hub_url,
    try_to_load_from_cache,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tabzoo.errors import WeightsError, brief
from tabzoo.hub.files import LARGEST_JSON, Digest
from tabzoo.hub.folder import Folder, read_folder
from tabzoo.hub.record import CONFIG, RECORD, WEIGHTS, read_record
from tabzoo.network import within

__all__ = [
    *("COMMIT", "TIMEOUT_SECONDS", "Fetched", "NoSuchFileError", "Repository", "disk_error", "endpoint", "local_copy"),
    "why_unreachable",
]

_log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 8.0
"""After this time without an answer, the Hub counts as unreachable."""

COMMIT = re.compile("[0-9a-f]{40}")
"""The form of a commit, as opposed to a branch or a tag."""


class NoSuchFileError(WeightsError):
    """The repository and the commit exist, the file does not."""


class _UnreachableError(WeightsError):
    """Nothing answers; a copy in the cache may be used."""


class Fetched(NamedTuple):
    """A folder in the cache, all of it from one commit."""

    folder: Folder
    commit: str


@dataclass(frozen=True)
class Repository:
    """A Hub repository at a commit, a branch or a tag.

    Attributes:
        id: "organisation/name".
        revision: 40 hexadecimal digits of a commit, or a name that can move to another commit.
        cache_dir: Where huggingface_hub keeps files; None for its default.
    """

    id: str
    revision: str
    cache_dir: Path | None = None

    def fetch_folder(self, *, also: Sequence[str] = ()) -> Fetched:
        """Fetches record, configuration and weights; the weights must match the repository's own record.

        Args:
            also: More files, if the repository has them.

        Raises:
            WeightsError: One of them can't be fetched or is not valid.
        """
        record = self.fetch(RECORD)
        # The cache keeps the files of a commit in a folder named by the commit; from here on, only that commit is used.
        pinned = Repository(self.id, record.parent.name, self.cache_dir)
        pinned.fetch(CONFIG)
        for filename in also:
            with suppress(NoSuchFileError):
                pinned.fetch(filename)
        pinned.fetch_weights(read_record(record).digest)
        return Fetched(read_folder(record.parent), pinned.revision)

    def fetch_weights(self, expected: Digest) -> Path:
        """Fetches the weights file with this digest; a wrong copy is removed and fetched once more.

        Raises:
            WeightsError: It can't be fetched, or its digest is wrong twice.
        """
        for _ in range(2):
            path = self.fetch(WEIGHTS, expected)
            found = Digest.of(path)
            if found == expected:
                return path
            _log.warning("%s: removed a copy with SHA-256 %s, expected %s", self, found.sha256, expected.sha256)
            path.resolve().unlink(missing_ok=True)  # the cache's snapshots are links
            path.unlink(missing_ok=True)
        raise WeightsError(
            f"{self}: {WEIGHTS} was downloaded twice with a wrong checksum (SHA-256 {found.sha256}, expected "
            f"{expected.sha256}) and was removed. Something between here and the Hub changes it: try without the proxy or "
            f"mirror ({endpoint()}); if that does not help, report it to the project."
        )

    def fetch(self, filename: str, expected: Digest | None = None) -> Path:
        """Fetches one file; a cached one needs no request if the revision is a commit.

        Args:
            filename: Its name.
            expected: Its digest, if known: a file that the Hub announces with another one is not downloaded. Without it, the
                file must be small.

        Raises:
            NoSuchFileError: The repository has no such file.
            WeightsError: It can't be fetched.
        """
        found = try_to_load_from_cache(self.id, filename, cache_dir=self.cache_dir, revision=self.revision)
        cached = Path(found) if isinstance(found, str) else None
        if cached and COMMIT.fullmatch(self.revision):
            return cached
        try:
            self._check_announced(filename, expected)
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
                etag_timeout=TIMEOUT_SECONDS,
            )
        except LocalEntryNotFoundError as error:
            raise self._unreachable(filename, f"{endpoint()} has stopped answering") from error
        except HfHubHTTPError as error:
            raise self._refused(filename, error) from error
        except Exception as error:  # network errors depend on huggingface_hub's version; also the disk's and xet's
            raise self._interrupted(filename, error) from error
        return Path(path)

    def _check_announced(self, filename: str, expected: Digest | None) -> None:
        """Asks once before the download. This finds nearly every error; huggingface_hub would retry and blame the network."""
        if constants.HF_HUB_OFFLINE:
            raise self._unreachable(filename, "HF_HUB_OFFLINE is set")
        url = hf_hub_url(self.id, filename, revision=self.revision, endpoint=endpoint())
        try:
            metadata = within(TIMEOUT_SECONDS, lambda: get_hf_file_metadata(url, timeout=TIMEOUT_SECONDS))
        except HfHubHTTPError as error:
            raise self._refused(filename, error) from error
        except Exception as error:  # of requests or httpx, depending on huggingface_hub's version
            raise self._unreachable(filename, f"{endpoint()} does not answer ({brief(error)})") from error
        if metadata.commit_hash is None or metadata.etag is None:
            raise WeightsError(
                f"{self}: {filename}: the server at {endpoint()} is not a Hub (perhaps a proxy or a login page). Check "
                f"HF_ENDPOINT and the proxy settings."
            )
        if COMMIT.fullmatch(self.revision) and metadata.commit_hash != self.revision:
            raise WeightsError(f"{self}: {endpoint()} answers with another commit, {metadata.commit_hash}")
        self._check_digest(filename, expected, metadata.etag, metadata.size)
        if urlsplit(metadata.location).netloc not in ("", urlsplit(endpoint()).netloc):
            reason = why_unreachable(metadata.location.split("?")[0])
            if reason:
                raise self._unreachable(
                    filename, f"the Hub answers, but its storage for large files does not: {reason}"
                )

    def _check_digest(self, filename: str, expected: Digest | None, etag: str, size: int | None) -> None:
        announced = f"{self}: not downloaded: the Hub announces {filename} with"
        if expected is None:
            if size is not None and size > LARGEST_JSON:
                raise WeightsError(f"{announced} {size:,} bytes, expected at most {LARGEST_JSON:,}")
        elif size not in (None, expected.size):
            raise WeightsError(f"{announced} {size:,} bytes, expected {expected.size:,}")
        elif re.fullmatch("[0-9a-f]{64}", etag) and etag != expected.sha256:  # of large files, the etag is the SHA-256
            raise WeightsError(f"{announced} the SHA-256 {etag}, expected {expected.sha256}")

    def _refused(self, filename: str, error: HfHubHTTPError) -> WeightsError:
        """The Hub's refusal as an error that says what to do."""
        page = f"{endpoint()}/{self.id}"
        match error:
            case GatedRepoError():
                cause = f"the repository is gated. Request access on {page}, then log in: `hf auth login`, or HF_TOKEN"
            case RepositoryNotFoundError():
                cause = (
                    f"{endpoint()} has no such repository, or it is private. Check the name; for a private one log in: "
                    f"`hf auth login`, or HF_TOKEN"
                )
            case RevisionNotFoundError():
                cause = "the repository has no such revision. Check the part after the @, or update tabzoo"
            case EntryNotFoundError():
                return NoSuchFileError(
                    f"{self}: {filename} can't be fetched: the repository has no such file at this revision. tabzoo needs "
                    f"{WEIGHTS} and {RECORD}, and loads no pickles; see {page}."
                )
            case _:
                cause = f"{endpoint()} answers {brief(error)}. Try again later, or use a mirror (HF_ENDPOINT)"
        return WeightsError(f"{self}: {filename} can't be fetched: {cause}.")

    def _interrupted(self, filename: str, error: Exception) -> WeightsError:
        cause, remedy = brief(error), "Try again"
        if reason := disk_error(error):
            cause = f"{self.cache_dir or constants.HF_HUB_CACHE} can't be written to: {reason}"
            remedy = "Free some space there or name another folder: --cache-dir, or HF_HOME"
        return WeightsError(
            f"{self}: {filename} was not downloaded completely: {cause}. {remedy}; the part that was downloaded is kept."
        )

    def _unreachable(self, filename: str, cause: str) -> WeightsError:
        return _UnreachableError(
            f"{self}: {filename} can't be fetched: {cause}, and the Hub cache holds no copy. What you can do:\n"
            f"  use a proxy or a mirror:  set HTTPS_PROXY, or HF_ENDPOINT\n"
            f"  work without network:     `tabzoo download NAME --to DIR` on a machine that has one, copy DIR to this "
            f"machine, then `tabzoo install NAME DIR`"
        )

    def __str__(self) -> str:
        return f"{self.id}@{self.revision}"


def endpoint() -> str:
    """The Hub's address: a mirror's if HF_ENDPOINT names one."""
    return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")


def local_copy(repository: str, filenames: Sequence[str], *, revision: str | None = None) -> Path | None:
    """The cached copy of a Hub file if the Hub does not answer; None if it does, so that a library can fetch the file.

    Without network, libraries try each request six times and need 50 s to fail. One request finds the same within
    `TIMEOUT_SECONDS`.

    Args:
        repository: Hub repository, "organisation/name".
        filenames: Names that the file may have, the preferred one first.
        revision: Commit, branch or tag; None for the main branch.

    Raises:
        WeightsError: The Hub does not answer and there is no cached copy; the text is the cause, in a few words.
    """
    cause = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else why_unreachable(endpoint())
    if cause is None:
        return None
    for filename in filenames:
        cached = try_to_load_from_cache(repository, filename, None, revision)
        if isinstance(cached, str):
            return Path(cached)
    raise WeightsError(f"{cause}, and the Hub cache holds no copy of {repository} ({' or '.join(filenames)})")


def why_unreachable(address: str) -> str | None:
    """Why nothing answers at an address, or None if something does."""
    try:
        # Any answer is enough, even an error status: it shows that the network works.
        within(TIMEOUT_SECONDS, lambda: get_session().head(address, timeout=TIMEOUT_SECONDS))
    except Exception as error:  # of requests or httpx, depending on huggingface_hub's version
        return f"{address} does not answer ({brief(error)})"
    return None


def disk_error(error: BaseException) -> str | None:
    """Why the disk can't be written to, in the system's words; None for any other error, such as the network's."""
    codes = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG)
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno in codes else None

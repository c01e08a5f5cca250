"""Publishes a weights folder as a version of a Hub repository, which is read back before it gets its tag.

The order is commit, read back, tag: so a tag always names bytes that were read back and compared. Until the tag exists, the
same command continues where it was stopped; a version that has its tag is never written again.
"""

import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

from tabzoo.errors import InputError, TabzooError, WeightsError, brief
from tabzoo.hub.card import published_card, read_results
from tabzoo.hub.files import json_bytes, read_json
from tabzoo.hub.folder import HASHES, verify
from tabzoo.hub.license_terms import check_license
from tabzoo.hub.names import LICENSE
from tabzoo.hub.record import CARD, CONFIG, RECORD, UNSPECIFIED, WEIGHTS, Record
from tabzoo.hub.remote import COMMIT, disk_error, endpoint, why_unreachable

__all__ = ["Package", "pack", "publish"]

_PUBLISHED = (
    *(WEIGHTS, CONFIG, RECORD, CARD, "recipe.yaml", "text_features.safetensors", "metrics.jsonl", "validation.jsonl"),
    *(HASHES, "figures/samples.png", "figures/curves.png", "figures/similarity.png"),
)
"""The files that are published, as far as they exist: no run.json, which has paths, and no checkpoints."""

_PICKLES = (".bin", ".ckpt", ".pkl", ".pickle", ".pt", ".pth")
_ABSOLUTE = re.compile(r"""(?<![\w./:~<>*-])(/[\w.-]+/[\w.-]+|[A-Za-z]:[\\/]+\w+|\\\\\w+|file://)""")


@dataclass(frozen=True, kw_only=True)
class Package:
    """What is to be published.

    Attributes:
        repository: "organisation/name".
        version: Its future tag.
        record: The weights' record, with the licence that is published.
        files: Names in the repository to contents.
        former_license: The licence in the folder's record, where another one was given.
    """

    repository: str
    version: str
    record: Record
    files: dict[str, bytes]
    former_license: str | None = None


def pack(
    folder: Path,
    repository: str,
    *,
    version: str = "v1",
    license: str | None = None,
    results: Sequence[Path] = (),
    datasets: Sequence[str] = (),
) -> Package:
    """Checks a weights folder and collects what is published; the folder does not change.

    Args:
        folder: A weights folder.
        repository: "organisation/name"; the name must be that of the weights.
        version: Its future tag.
        license: Of the weights; the one in the folder's record if not given. Record, configuration and card get it.
        results: The benchmark's results.jsonl, for the card.
        datasets: The training data's names, for the card.

    Raises:
        InputError: Something is missing or must not be published.
        WeightsError: The weights differ from their record.
    """
    checked = _checked(folder, license)
    record = checked if license is None else _relicensed(checked, license)
    check_license(record.license, record.content)
    _check_names(folder, record, repository, version)
    there = [name for name in _PUBLISHED if (folder / name).is_file()]
    if links := [name for name in there if (folder / name).resolve() != folder.resolve() / name]:
        raise InputError(
            f"{folder / links[0]}: a link, which might publish a file from elsewhere; replace it with the file"
        )
    files = {name: (folder / name).read_bytes() for name in there}
    if license is not None:
        config = read_json(folder / CONFIG)
        config["pretrained_cfg"] = {**config["pretrained_cfg"], "license": license}
        files |= {RECORD: json_bytes(record.content), CONFIG: json_bytes(config)}
    files[CARD] = published_card(
        files[CARD].decode(errors="replace"),
        name=record.name,
        license=record.license,
        source=f"hf-hub:{repository}@{version}",
        datasets=datasets,
        results=read_results(results, sorted({record.name, folder.resolve().name})),
    ).encode()
    for name, content in files.items():
        is_text = name.endswith((".json", ".jsonl", ".md", ".yaml"))
        if is_text and (found := _ABSOLUTE.search(content.decode(errors="replace"))):
            raise InputError(
                f"{folder / name}: contains an absolute path, {found[0]}..., which reveals a path on your machine; remove it"
            )
    former = checked.license if checked.license != record.license else None
    return Package(repository=repository, version=version, record=record, files=files, former_license=former)


def _relicensed(record: Record, license: str) -> Record:
    if not LICENSE.fullmatch(license) or license == UNSPECIFIED:
        raise InputError(
            f"--license {license[:100]!r}: expected an SPDX identifier, such as cc-by-nc-sa-4.0, or LicenseRef-NAME"
        )
    return replace(record, license=license, content={**record.content, "license": license})


def _check_names(folder: Path, record: Record, repository: str, version: str) -> None:
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", repository) or repository.split("/")[1] != record.name:
        raise InputError(
            f"--repo {repository}: expected ORGANISATION/{record.name}, the name in the record; to publish under another name, "
            f'change "name" in {folder / RECORD}'
        )
    tag = re.fullmatch(r"\w(\.?[\w-]+)*", version)  # what git accepts
    if not tag or version == "main" or COMMIT.fullmatch(version) or version.endswith(".lock"):
        raise InputError(
            f"--version {version}: expected letters, digits, dots and dashes, such as v2; not a branch or a commit"
        )


def _checked(folder: Path, license: str | None) -> Record:
    if not folder.is_dir():
        raise InputError(f"{folder}: expected a weights folder, as a run or `tabzoo convert` writes it")
    read = verify(folder).folder
    assert read is not None
    assert read.record is not None
    record, stated = read.record, read.config.license
    if license is None and (record.license == UNSPECIFIED or record.license != stated):
        raise InputError(
            f'{folder}: the licence is "{record.license}" in {RECORD} and "{stated}" in {CONFIG}; type --license with one that '
            f"the licence of the training images allows, such as cc-by-nc-sa-4.0"
        )
    card = folder / CARD
    if not card.is_file() or f"# {record.name}" not in card.read_text(encoding="utf-8", errors="replace"):
        raise InputError(
            f'{card}: expected the card that a run or `tabzoo convert` writes, with the heading "# {record.name}"'
        )
    pickles = sorted(entry.name for entry in folder.iterdir() if entry.suffix in _PICKLES)
    if pickles:
        raise InputError(
            f"{folder}: contains {', '.join(pickles)}; weights are only published as {WEIGHTS}: move the other files elsewhere"
        )
    return record


def publish(package: Package, *, private: bool = False) -> str:
    """Uploads a package, reads it back into an empty cache, compares all bytes, and tags the commit.

    Args:
        package: The result of `pack`.
        private: Whether a new repository is private.

    Returns:
        The commit.

    Raises:
        WeightsError: The Hub refuses, the version exists with other content, or what is read back differs.
    """
    api, repository = HfApi(endpoint=endpoint()), package.repository
    if reason := why_unreachable(endpoint()):
        raise WeightsError(f"{repository}: can't be published: {reason}")
    with _explained(repository):
        if not api.repo_exists(repository):
            api.create_repo(repository, private=private)
        info = api.model_info(repository)
        if private and not info.private:
            raise WeightsError(f"{repository}: exists and is public. Make it private there, or leave --private out.")
        pickles = sorted(file.rfilename for file in info.siblings or [] if file.rfilename.endswith(_PICKLES))
        if pickles:
            raise WeightsError(
                f"{repository}: contains {', '.join(pickles)}, which timm may load instead of {WEIGHTS}; a pickle can execute "
                f"code. Delete them there, or name a new repository."
            )
        tags = {tag.name: tag.target_commit for tag in api.list_repo_refs(repository).tags}
        if package.version in tags:
            return _published_before(package, tags[package.version])
        additions = [CommitOperationAdd(name, content) for name, content in package.files.items()]
        message = f"{package.record.name} {package.version}"
        commit = api.create_commit(repository, additions, commit_message=message, parent_commit=info.sha).oid
        different = _different(package, commit)
        if different:
            raise WeightsError(
                f"{repository}: {', '.join(different)} came back from commit {commit} with other bytes than were sent, so the "
                f"commit is not tagged. Try again; if it happens again, something between here and the Hub changes files."
            )
        api.create_tag(repository, tag=package.version, revision=commit)
    return commit


def _published_before(package: Package, commit: str) -> str:
    different = _different(package, commit)
    if different:
        raise WeightsError(
            f"{package.repository}: {package.version} exists already (commit {commit}), with another {', '.join(different)}. A "
            f"published version never changes: name a new one with --version."
        )
    return commit


def _different(package: Package, commit: str) -> list[str]:
    """Names of files that differ between commit and package; the commit is read into an empty cache."""
    different = []
    with tempfile.TemporaryDirectory() as cache:
        for name, content in package.files.items():
            try:
                path = hf_hub_download(package.repository, name, revision=commit, cache_dir=cache, endpoint=endpoint())
                same = Path(path).read_bytes() == content
            except LocalEntryNotFoundError:  # a subclass of the next one, but here the Hub did not answer
                raise
            except EntryNotFoundError:
                same = False
            if not same:
                different.append(name)
    return different


@contextmanager
def _explained(repository: str) -> Iterator[None]:
    """Turns errors of the Hub and the network into ones that say what to do."""
    try:
        yield
    except TabzooError:
        raise
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        cause = _CAUSES.get(status or 0, f"{endpoint()} answers {brief(error)}")
        raise WeightsError(f"{repository}: can't be published: {cause}. The same command continues.") from error
    except Exception as error:  # of requests or httpx, depending on huggingface_hub's version; ValueError from the card
        cause = brief(error)
        if reason := disk_error(error):  # of the folder for what is read back
            cause = f"{tempfile.gettempdir()} can't be written to: {reason}. To use another folder, set TMPDIR"
        raise WeightsError(
            f"{repository}: the upload was interrupted: {cause}. No version is tagged; the same command continues."
        ) from error


_CAUSES = {
    401: "repository not found, or login required: `hf auth login`, or HF_TOKEN with a token that may write",
    403: "your token may not write there; use one that may, or a namespace of your own",
    404: "the organisation or repository does not exist",
    409: "someone else changed it in the meantime",
    412: "someone else changed it in the meantime",
}

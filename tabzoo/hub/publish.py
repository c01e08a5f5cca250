"""`tabzoo publish`: a weights folder becomes a version of a Hub repository, and is read back before it is called one.

The order is commit, read back, tag: a tag names bytes that were read back and compared. Until the tag is there, the same
command goes on where it was stopped; a version whose tag is there is never written again.
"""

import argparse
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

from tabzoo.errors import InputError, TabzooError, WeightsError, brief
from tabzoo.hub.card import published_card, read_results
from tabzoo.hub.fetch import COMMIT
from tabzoo.hub.files import full_disk
from tabzoo.hub.folders import CARD, CONFIG, HASHES, RECORD, WEIGHTS, Record, verify
from tabzoo.hub.reach import endpoint, silence_of
from tabzoo.plain import for_lines

__all__ = ["Package", "add_command", "pack", "publish"]

_PUBLISHED = (
    *(WEIGHTS, CONFIG, RECORD, CARD, "recipe.yaml", "text_features.safetensors", "metrics.jsonl", "validation.jsonl"),
    *(HASHES, "figures/samples.png", "figures/curves.png", "figures/similarity.png"),
)
"""What goes to the Hub where it is there; no run.json with its paths, no checkpoints."""

_PICKLES = (".bin", ".ckpt", ".pkl", ".pickle", ".pt", ".pth")
_ABSOLUTE = re.compile(r"""(?<![\w./:~<>*-])(/[\w.-]+/[\w.-]+|[A-Za-z]:[\\/]+\w+|\\\\\w+|file://)""")


@dataclass(frozen=True, kw_only=True)
class Package:
    """What is going to be published.

    Attributes:
        repository: "organisation/name".
        version: The tag it gets.
        record: The weights' record.
        files: Name in the repository to content.
    """

    repository: str
    version: str
    record: Record
    files: dict[str, bytes]


def pack(
    folder: Path,
    repository: str,
    *,
    version: str = "v1",
    results: Sequence[Path] = (),
    datasets: Sequence[str] = (),
) -> Package:
    """Checks a weights folder and gathers what is published of it; the folder is left as it is.

    Args:
        folder: A weights folder.
        repository: "organisation/name", the name being that of the weights.
        version: The tag to be.
        results: The benchmark's results.jsonl, for the card.
        datasets: The training data's names, for the card.

    Raises:
        InputError: Something is missing or must not be published.
        WeightsError: The weights are not what their record says.
    """
    record = _checked(folder)
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", repository) or repository.split("/")[1] != record.name:
        raise InputError(
            f"--repo {repository}: expected ORGANISATION/{record.name}, since the record calls the weights so; to publish "
            f'under another name, change "name" in {folder / RECORD}'
        )
    tag = re.fullmatch(r"\w(\.?[\w-]+)*", version)  # what git takes
    if not tag or version == "main" or COMMIT.fullmatch(version) or version.endswith(".lock"):
        raise InputError(
            f"--version {version}: expected letters, digits, dots, dashes, no branch or commit, such as v2"
        )
    there = [name for name in _PUBLISHED if (folder / name).is_file()]
    if links := [name for name in there if (folder / name).resolve() != folder.resolve() / name]:
        raise InputError(
            f"{folder / links[0]}: a link, which might publish what lies elsewhere; put the file in its place"
        )
    files = {name: (folder / name).read_bytes() for name in there}
    files[CARD] = published_card(
        files[CARD].decode(errors="replace"),
        name=record.name,
        license=record.license,
        source=f"hf-hub:{repository}@{version}",
        datasets=datasets,
        results=read_results(results, sorted({record.name, folder.resolve().name})),
    ).encode()
    for name, content in files.items():
        found = (
            _ABSOLUTE.search(content.decode(errors="replace"))
            if name.endswith((".json", ".jsonl", ".md", ".yaml"))
            else None
        )
        if found:
            raise InputError(
                f"{folder / name}: holds an absolute path, {found[0]}...; it reveals a path on your machine; remove it"
            )
    return Package(repository=repository, version=version, record=record, files=files)


def _checked(folder: Path) -> Record:
    if not folder.is_dir():
        raise InputError(f"{folder}: expected a weights folder, as a run or `tabzoo convert` leaves it")
    read = verify(folder).folder
    assert read is not None
    assert read.record is not None
    record, stated = read.record, read.config.license
    if record.license == "unspecified" or record.license != stated:
        raise InputError(
            f'{folder}: the licence is "{record.license}" in {RECORD} and "{stated}" in {CONFIG}; set "license" in both to one '
            f"that the training images' licence allows, such as cc-by-nc-sa-4.0"
        )
    card = folder / CARD
    if not card.is_file() or f"# {record.name}" not in card.read_text(encoding="utf-8", errors="replace"):
        raise InputError(f'{card}: expected the card that a run or `tabzoo convert` writes, headed "# {record.name}"')
    pickles = sorted(entry.name for entry in folder.iterdir() if entry.suffix in _PICKLES)
    if pickles:
        raise InputError(
            f"{folder}: holds {', '.join(pickles)}; weights are published as {WEIGHTS} alone: move the rest elsewhere"
        )
    return record


def publish(package: Package, *, private: bool = False) -> str:
    """Uploads a package, reads it back into an empty cache, compares all bytes, and tags the commit.

    Args:
        package: What `pack` gathered.
        private: Whether a repository that is made for it is private.

    Returns:
        The commit.

    Raises:
        WeightsError: The Hub refuses, the version is there with other content, or what is read back differs.
    """
    api, repository = HfApi(endpoint=endpoint()), package.repository
    silence = silence_of(endpoint())
    if silence:
        raise WeightsError(f"{repository}: can't be published: {silence}")
    with _told(repository):
        if not api.repo_exists(repository):
            api.create_repo(repository, private=private)
        info = api.model_info(repository)
        if private and not info.private:
            raise WeightsError(f"{repository}: is there and public. Make it private there, or leave --private out.")
        pickles = sorted(file.rfilename for file in info.siblings or [] if file.rfilename.endswith(_PICKLES))
        if pickles:
            raise WeightsError(
                f"{repository}: holds {', '.join(pickles)}, which timm loads when safetensors can't be had, and a pickle runs "
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
                f"commit is not tagged. Try again; if it stays so, something on the way changes files."
            )
        api.create_tag(repository, tag=package.version, revision=commit)
    return commit


def _published_before(package: Package, commit: str) -> str:
    different = _different(package, commit)
    if different:
        raise WeightsError(
            f"{package.repository}: has {package.version} already (commit {commit}), with another {', '.join(different)}. A "
            f"published version is never changed: type --version with a new one."
        )
    return commit


def _different(package: Package, commit: str) -> list[str]:
    """Names of files that are not in the commit as they are in the package, read into an empty cache."""
    different = []
    with tempfile.TemporaryDirectory() as cache:
        for name, content in package.files.items():
            try:
                path = hf_hub_download(package.repository, name, revision=commit, cache_dir=cache, endpoint=endpoint())
                same = Path(path).read_bytes() == content
            except LocalEntryNotFoundError:  # of the next one's kind, but the Hub did not answer
                raise
            except EntryNotFoundError:
                same = False
            if not same:
                different.append(name)
    return different


@contextmanager
def _told(repository: str) -> Iterator[None]:
    """Makes the Hub's and the network's errors ours."""
    try:
        yield
    except TabzooError:
        raise
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        cause = _CAUSES.get(status or 0, f"{endpoint()} answers {brief(error)}")
        raise WeightsError(f"{repository}: can't be published: {cause}. The same command goes on.") from error
    except (
        Exception
    ) as error:  # requests' or httpx's own, by the version of huggingface_hub, and ValueError of the card
        cause = brief(error)
        if full := full_disk(error):  # what is read back lies there
            cause = f"{tempfile.gettempdir()} can't be written to: {full}. Another folder: TMPDIR"
        raise WeightsError(
            f"{repository}: the upload broke off: {cause}. No version is tagged; the same command goes on."
        ) from error


_CAUSES = {
    401: "repository not found, or login required: `hf auth login`, or HF_TOKEN with a token that may write",
    403: "your token may not write there; take one that may, or a namespace of yours",
    404: "there is no such organisation or repository",
    409: "it was changed from elsewhere meanwhile",
    412: "it was changed from elsewhere meanwhile",
}


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `publish` to the subcommands of a command line."""
    parser = commands.add_parser("publish", help="publish a weights folder to the Hugging Face Hub")
    parser.add_argument("folder", type=Path, metavar="DIR", help="a finished run, or what `tabzoo convert` made")
    parser.add_argument(
        "--repo", required=True, metavar="ORG/NAME", help="made if it is not there; NAME as in tabzoo.json"
    )
    parser.add_argument("--version", default="v1", metavar="TAG", help="tag of this version; one that is there stays")
    parser.add_argument("--private", action="store_true", help="if the repository is made, make it private")
    parser.add_argument(
        "--results", type=Path, nargs="+", default=[], metavar="FILE", help="results.jsonl, for the card"
    )
    parser.add_argument(
        "--datasets", nargs="+", default=[], metavar="NAME", help="training data, for the card's metadata"
    )
    parser.add_argument("--dry-run", action="store_true", help="check all and show the card; ask nothing of the Hub")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    package = pack(
        options.folder, options.repo, version=options.version, results=options.results, datasets=options.datasets
    )
    record = package.record
    print(
        f"{record.name}, licence {record.license}, SHA-256 {record.digest.sha256}, as {package.version} of {options.repo}:"
    )
    for name, content in package.files.items():
        print(f"  {name:30}{len(content):>12,} bytes")
    if options.dry_run:
        print(f"\n{for_lines(package.files[CARD].decode())}\nNothing was sent. Without --dry-run, this is published.")
        return 0
    commit = publish(package, private=options.private)
    print(
        f"Published and read back, byte by byte. For tabzoo's table (tabzoo/hub/table.py):\n{_entry(package, commit)}"
    )
    return 0


def _entry(package: Package, commit: str) -> str:
    sha256, size = package.record.digest
    return f"""        release=Release(
            repository="{package.repository}",
            commit="{commit}",
            sha256="{sha256}",
            size={size},
        ),"""

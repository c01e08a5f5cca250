"""From what a user names (a name, a folder, a Hub repository) to one file on this machine and the digest it must have.

A name is looked up in the local store, then, if TABZOO_HUB_ORG is set, in that organisation on the Hub, then in the table
of published weights. The weights of an organisation are checked only against their own record: a user has to trust it, and
a warning says so.
"""

import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path

from timm.models import PretrainedCfg
from torch import Tensor

from tabzoo.errors import InputError, WeightsError, did_you_mean
from tabzoo.hub import store, table
from tabzoo.hub.config import PAPER, architecture_facts
from tabzoo.hub.files import Digest, file_state
from tabzoo.hub.folder import HASHES, Folder, read_folder
from tabzoo.hub.names import check_name
from tabzoo.hub.record import CARD, RECORD, WEIGHTS
from tabzoo.hub.remote import Repository
from tabzoo.hub.tensors import read_tensors

__all__ = ["Source", "list_models", "pretrained_cfg", "resolve", "resolve_name"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Source:
    """Weights on this machine.

    Attributes:
        name: timm name with tag, or the name in the folder's record.
        weights: The file.
        digest: The digest that it must have; None in a folder without record.
        license: Of the weights.
        origin: Where they come from, for people.
        config: How timm uses them.
        remedy: What to do if they are damaged, as the end of a message.
    """

    name: str
    weights: Path
    digest: Digest | None
    license: str
    origin: str
    config: PretrainedCfg
    remedy: str = ""

    @classmethod
    def of(cls, folder: Folder, *, name: str, origin: str, remedy: str = "") -> "Source":
        """A weights folder as a source."""
        license = folder.record.license if folder.record else folder.config.license or "unspecified"
        return cls(
            name=name,
            weights=folder.weights,
            digest=folder.digest,
            license=license,
            origin=origin,
            config=folder.config,
            remedy=remedy,
        )

    def read(self) -> tuple[dict[str, Tensor], Digest]:
        """The tensors and their file's digest.

        Raises:
            WeightsError: The file is not the right one.
        """
        try:
            return read_tensors(self.weights, self.digest)
        except WeightsError as error:
            raise WeightsError(f"{error}{self.remedy}") from error

    def verified_file(self) -> Path:
        """The file, once its digest is verified.

        Raises:
            WeightsError: The file is not the right one.
        """
        try:
            found = Digest.of(self.weights)
        except OSError as error:
            raise WeightsError(f"{self.weights}: can't be read: {error.strerror}{self.remedy}") from error
        if self.digest is not None and found != self.digest:
            raise WeightsError(
                f"{self.weights}: wrong checksum: SHA-256 {found.sha256}, expected {self.digest.sha256}{self.remedy}"
            )
        return self.weights


def resolve(
    source: str | os.PathLike[str],
    *,
    organisation: str | None = None,
    cache_dir: Path | None = None,
    complete: bool = False,
) -> Source:
    """The weights of a name, a folder or a Hub repository.

    Args:
        source: A name; a weights folder or the file in it, with or without "local-dir:"; or "hf-hub:ORG/NAME@REVISION".
        organisation: The organisation on the Hub in which to look for a name.
        cache_dir: For files of the Hub; None for huggingface_hub's own.
        complete: Whether record, configuration and card must be in the folder of the weights.

    Raises:
        InputError: The weights do not exist.
        WeightsError: The weights can't be fetched or used.
    """
    text = os.fspath(source)
    prefix, _, rest = text.partition(":")
    if prefix in ("hf-hub", "hf_hub"):
        return _from_hub(rest, cache_dir, complete)
    if prefix == "local-dir":
        return _from_folder(Path(rest), recorded=complete)
    known = organisation is not None or table.find_weights(text) is not None or store.has_entry(text)
    if isinstance(source, str) and (known or not Path(text).exists()):
        return resolve_name(text, organisation=organisation, cache_dir=cache_dir, complete=complete)
    return _from_folder(Path(text), recorded=complete)


_RESOLVED: dict[tuple[str, Path | None], tuple[Source, object]] = {}
"""Name and cache folder to what they were resolved to in this process, and the state at that time."""


def resolve_name(
    name: str, *, organisation: str | None = None, cache_dir: Path | None = None, complete: bool = False
) -> Source:
    """As `resolve`, for a name; resolved once in a process, until the store, the table or the weights file changes.

    Names in an organisation are looked up each time, since its branch can move.
    """
    if organisation is None and not store.has_entry(name):
        organisation = os.environ.get("TABZOO_HUB_ORG")
    if organisation:
        return _from_organisation(name, organisation, cache_dir, complete)
    before = store.entry_state(name), table.find_weights(name)
    source, state = _RESOLVED.get((name, cache_dir), (None, None))
    if source is not None and not complete and state == (before, file_state(source.weights)):
        return source
    entry = store.find(name)
    source = _from_store(entry) if entry else _published(name, cache_dir, complete)
    _RESOLVED[name, cache_dir] = source, (before, file_state(source.weights))
    return source


def _from_store(entry: store.Entry) -> Source:
    return Source.of(
        entry.folder,
        name=entry.name,
        origin=f"the local store ({entry.folder.path})",
        remedy=f". Type `tabzoo uninstall {entry.name}`, then install it again.",
    )


def _published(name: str, cache_dir: Path | None, complete: bool) -> Source:
    weights = table.find_weights(name)
    if weights is None:
        raise InputError(
            f"{name}: neither weights of tabzoo ({', '.join(list_models())}) nor a weights folder. For weights on the Hub type "
            f"hf-hub:ORG/NAME@COMMIT; timm's own weights are loaded by timm.create_model.{did_you_mean(name, list_models())}"
        )
    if weights.release is None:
        raise WeightsError(
            f"{name}: these weights are not published yet. What you can do:\n"
            f"  install the authors' checkpoint:  tabzoo install {name} CHECKPOINT\n"
            f"  train them:                       tabzoo pretrain --recipe {name} --data DIR --output OUT, then\n"
            f"                                    tabzoo install {name} OUT\n"
            f'  in Python, load such a folder:    timm.create_model("local-dir:OUT", pretrained=True)\n'
            f'  in Python, use random weights:    timm.create_model("{name}", pretrained=False)'
        )
    release = weights.release
    repository = Repository(release.repository, release.commit, cache_dir)
    if complete:
        folder, _ = repository.fetch_folder(also=[CARD, HASHES])
        if folder.digest != release.digest:
            raise WeightsError(f"{repository}: its {RECORD} does not describe the weights that tabzoo knows as {name}")
    return Source(
        name=name,
        weights=repository.fetch_weights(release.digest),
        digest=release.digest,
        license=weights.license,
        origin=str(repository),
        config=pretrained_cfg(weights),
    )


def _from_organisation(name: str, organisation: str, cache_dir: Path | None, complete: bool) -> Source:
    check_name(name)
    source = _from_hub(f"{organisation}/{name}", cache_dir, complete)
    if source.config.architecture != name.split(".")[0]:
        raise WeightsError(f"{source.origin}: contains weights of {source.config.architecture}, not of {name}")
    _log.warning(
        "%s comes from %s: tabzoo does not know these weights and checks them only against the repository's own record. "
        "Use them only if you trust it",
        name,
        source.origin,
    )
    return source


def _from_hub(address: str, cache_dir: Path | None, complete: bool) -> Source:
    match = re.fullmatch(r"(?P<id>[\w-][\w.-]*/[\w-][\w.-]*)(?:@(?P<revision>[\w-][\w.-]*))?", address)
    if not match:
        raise InputError(f"hf-hub:{address}: expected hf-hub:ORG/NAME@COMMIT")
    repository = Repository(match["id"], match["revision"] or "main", cache_dir)
    folder, commit = repository.fetch_folder(also=[CARD, HASHES] if complete else [])
    assert folder.record is not None
    return Source.of(folder, name=folder.record.name, origin=f"{match['id']}@{commit}")


def _from_folder(path: Path, *, recorded: bool) -> Source:
    if path.is_file() and path.name != WEIGHTS:
        raise InputError(
            f"{path}: expected a weights folder or the {WEIGHTS} in it. To convert a checkpoint of torch.save: `tabzoo "
            f"convert`. To load any other file: timm.create_model(ARCHITECTURE, pretrained=True, "
            f'pretrained_cfg_overlay={{"file": FILE}})'
        )
    folder = read_folder(path.parent if path.is_file() else path, recorded=recorded)
    name = folder.record.name if folder.record else str(folder.config.architecture)
    return Source.of(folder, name=name, origin=str(folder.path))


def list_models() -> list[str]:
    """Names of tabzoo's weights and of the installed ones, in the form that `timm.create_model` takes."""
    return sorted({weights.name for weights in table.WEIGHTS} | {entry.name for entry in store.installed()})


def pretrained_cfg(weights: table.Weights) -> PretrainedCfg:
    """How timm uses weights of the table."""
    release = weights.release
    return PretrainedCfg(
        hf_hub_id=f"{release.repository}@{release.commit}" if release else None,
        hf_hub_filename=WEIGHTS if release else None,
        **architecture_facts(weights.architecture),
        num_classes=0,
        input_size=(3, 224, 224),
        pool_size=(7, 7),
        crop_pct=0.875,
        # The paper's preprocessing: squash to 256 x 256 by Lanczos, centre crop 224, ImageNet statistics (timm's default).
        crop_mode="squash",
        interpolation="lanczos",
        license=weights.license,
        description=f"TAB (Text-Align Anomaly Backbone) pre-trained on {weights.training_data}",
        **PAPER,
    )

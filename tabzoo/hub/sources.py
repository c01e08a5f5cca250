"""Where weights come from: what a user names, made into one file on this machine and what it has to be.

A name is looked up in the local store, then, where TABZOO_HUB_ORG says so, with an organisation on the Hub, then in the
table of published weights. An organisation's repository is its own witness: trust in it is the user's, and that is said.
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
from tabzoo.hub.config import architecture_facts
from tabzoo.hub.fetch import Repository
from tabzoo.hub.files import Digest, read_tensors
from tabzoo.hub.folders import CARD, HASHES, RECORD, WEIGHTS, Folder, read_folder
from tabzoo.hub.names import check_name

__all__ = ["Source", "find_source", "list_models", "named_source", "pretrained_cfg"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Source:
    """Weights on this machine.

    Attributes:
        name: timm name with tag, or what the folder calls itself.
        weights: The file.
        digest: What it must be; None in a folder without record.
        license: Of the weights.
        origin: Where they are from, for people.
        config: How timm is to use them.
        remedy: What to do where they are not as they must be, as the end of a message.
    """

    name: str
    weights: Path
    digest: Digest | None
    license: str
    origin: str
    config: PretrainedCfg
    remedy: str = ""

    def read(self) -> tuple[dict[str, Tensor], Digest]:
        """The tensors and their file's digest.

        Raises:
            WeightsError: They are not what they must be.
        """
        try:
            return read_tensors(self.weights, self.digest)
        except WeightsError as error:
            raise WeightsError(f"{error}{self.remedy}") from error

    def checked(self) -> Path:
        """The file, whose bytes are seen to be the right ones.

        Raises:
            WeightsError: They are not.
        """
        try:
            found = Digest.of(self.weights)
        except OSError as error:
            raise WeightsError(f"{self.weights}: can't be read: {error.strerror}{self.remedy}") from error
        if self.digest is not None and found != self.digest:
            raise WeightsError(
                f"{self.weights}: not the file it should be: SHA-256 {found.sha256}, expected {self.digest.sha256}{self.remedy}"
            )
        return self.weights

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


def find_source(
    source: str | os.PathLike[str],
    *,
    organisation: str | None = None,
    cache_dir: Path | None = None,
    whole: bool = False,
) -> Source:
    """The weights of a name, a folder or a Hub repository.

    Args:
        source: A name; a weights folder or the file in it, with or without "local-dir:"; or "hf-hub:ORG/NAME@REVISION".
        organisation: On the Hub, in whose namespace a name is looked for.
        cache_dir: For files of the Hub; None for huggingface_hub's own.
        whole: Whether record, configuration and card have to lie beside the weights.

    Raises:
        InputError: There is nothing of this name.
        WeightsError: The weights can't be had.
    """
    text = os.fspath(source)
    prefix, _, rest = text.partition(":")
    if prefix in ("hf-hub", "hf_hub"):
        return _from_hub(rest, cache_dir, whole)
    if prefix == "local-dir":
        return _from_folder(Path(rest), recorded=whole)
    is_name = isinstance(source, str) and (organisation is not None or text in list_models() or not Path(text).exists())
    if is_name:
        return named_source(text, organisation=organisation, cache_dir=cache_dir, whole=whole)
    return _from_folder(Path(text), recorded=whole)


def named_source(
    name: str, *, organisation: str | None = None, cache_dir: Path | None = None, whole: bool = False
) -> Source:
    """The weights of a name, their bytes verified, as `find_source` has it."""
    if organisation is None and (entry := store.find(name)):
        return _from_store(entry)
    organisation = organisation or os.environ.get("TABZOO_HUB_ORG")
    if organisation:
        return _from_organisation(name, organisation, cache_dir, whole)
    weights = table.find_weights(name)
    if weights is None:
        raise InputError(
            f"{name}: neither weights of tabzoo ({', '.join(list_models())}) nor a folder of weights; for weights on the Hub "
            f"type hf-hub:ORG/NAME@COMMIT, for timm's own timm.create_model.{did_you_mean(name, list_models())}"
        )
    return _published(weights, cache_dir, whole)


def _from_store(entry: store.Entry) -> Source:
    return Source.of(
        entry.folder,
        name=entry.name,
        origin=f"the local store ({entry.folder.path})",
        remedy=f". Type `tabzoo uninstall {entry.name}`, then install it again.",
    )


def _published(weights: table.Weights, cache_dir: Path | None, whole: bool) -> Source:
    if weights.release is None:
        raise WeightsError(
            f"{weights.name}: these weights are not published yet, so pretrained=True has nothing to load. Ways out:\n"
            f"  the authors' checkpoint:  tabzoo install {weights.name} CHECKPOINT\n"
            f"  train them:               tabzoo pretrain --recipe {weights.name} --data DIR --output OUT, then\n"
            f"                            tabzoo install {weights.name} OUT\n"
            f'  a folder of weights:      timm.create_model("local-dir:OUT", pretrained=True)\n'
            f"  random weights:           pretrained=False"
        )
    release = weights.release
    repository = Repository(release.repository, release.commit, cache_dir)
    if whole:
        folder, _ = repository.fetch_folder(also=[CARD, HASHES])
        if folder.digest != release.digest:
            raise WeightsError(f"{repository}: its {RECORD} is not of the weights that tabzoo knows as {weights.name}")
    return Source(
        name=weights.name,
        weights=repository.fetch_weights(release.digest),
        digest=release.digest,
        license=weights.license,
        origin=str(repository),
        config=pretrained_cfg(weights),
    )


def _from_organisation(name: str, organisation: str, cache_dir: Path | None, whole: bool) -> Source:
    check_name(name)
    source = _from_hub(f"{organisation}/{name}", cache_dir, whole)
    if source.config.architecture != name.split(".")[0]:
        raise WeightsError(f"{source.origin}: holds weights of {source.config.architecture}, not of {name}")
    _log.warning(
        "%s comes from %s: tabzoo does not know these weights; its record is the repository's own, the trust yours",
        name,
        source.origin,
    )
    return source


def _from_hub(address: str, cache_dir: Path | None, whole: bool) -> Source:
    match = re.fullmatch(r"(?P<id>[\w-][\w.-]*/[\w-][\w.-]*)(?:@(?P<revision>[\w-][\w.-]*))?", address)
    if not match:
        raise InputError(f"hf-hub:{address}: expected hf-hub:ORG/NAME@COMMIT")
    repository = Repository(match["id"], match["revision"] or "main", cache_dir)
    folder, commit = repository.fetch_folder(also=[CARD, HASHES] if whole else [])
    assert folder.record is not None
    return Source.of(folder, name=folder.record.name, origin=f"{match['id']}@{commit}")


def _from_folder(path: Path, *, recorded: bool) -> Source:
    if path.is_file() and path.name != WEIGHTS:
        raise InputError(
            f"{path}: expected a folder of weights or the {WEIGHTS} in it. A checkpoint of torch.save: `tabzoo convert`. Any "
            f'other file: timm.create_model(ARCHITECTURE, pretrained=True, pretrained_cfg_overlay={{"file": FILE}})'
        )
    folder = read_folder(path.parent if path.is_file() else path, recorded=recorded)
    name = folder.record.name if folder.record else str(folder.config.architecture)
    return Source.of(folder, name=name, origin=str(folder.path))


def list_models() -> list[str]:
    """Names of tabzoo's weights and of those in the local store, in the form `timm.create_model` takes."""
    return sorted({weights.name for weights in table.WEIGHTS} | {entry.name for entry in store.installed()})


def pretrained_cfg(weights: table.Weights) -> PretrainedCfg:
    """How timm is to use weights of the table."""
    release = weights.release
    return PretrainedCfg(
        hf_hub_id=f"{release.repository}@{release.commit}" if release else None,
        hf_hub_filename="model.safetensors" if release else None,
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
        paper_name="TAB: Text-Align Anomaly Backbone Model for Industrial Inspection Tasks",
        paper_ids="arXiv:2312.09480",
    )

"""A weights folder: written, read, verified, copied. It is ready for the Hub, and for timm's "local-dir:DIR".

`model.safetensors` and `config.json` are timm's Hub format. `tabzoo.json` is the record: name, SHA-256 and size of the
weights, licence, where they come from. `README.md` is a model card.
"""

import datetime
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from safetensors.torch import save_file
from timm.models import PretrainedCfg
from torch import Tensor

from tabzoo._version import __version__
from tabzoo.errors import InputError, WeightsError, WriteError
from tabzoo.hub.card import folder_card
from tabzoo.hub.config import read_config
from tabzoo.hub.files import Digest, write_json
from tabzoo.hub.record import CARD, CONFIG, RECORD, WEIGHTS, Record, read_record
from tabzoo.hub.tensors import read_tensors
from tabzoo.plain import for_path
from tabzoo.system import whole_file, writing

__all__ = [
    *("HASHES", "Folder", "Verified", "check_new", "copy_folder", "new_folder", "now", "read_folder", "verify"),
    "write_folder",
]

HASHES = "image_hashes.txt"
"""Of the training images: the first 16 hexadecimal digits of each file's SHA-256, sorted, one a line."""

_COPIED = (WEIGHTS, CONFIG, RECORD, CARD, HASHES, "recipe.yaml")


@dataclass(frozen=True, kw_only=True)
class Folder:
    """What a folder says about its weights; the weights themselves are not read yet.

    Attributes:
        path: The folder.
        config: How timm uses the weights.
        record: None if there is none, as in folders written by timm itself.
    """

    path: Path
    config: PretrainedCfg
    record: Record | None

    @property
    def weights(self) -> Path:
        """The weights file."""
        return self.path / WEIGHTS

    @property
    def digest(self) -> Digest | None:
        """The digest that it must have."""
        return self.record.digest if self.record else None


class Verified(NamedTuple):
    """Weights that were read completely.

    Attributes:
        tensors: All of the file.
        digest: Of the file.
        folder: What the folder says; None for a single file.
    """

    tensors: dict[str, Tensor]
    digest: Digest
    folder: Folder | None


def read_folder(path: Path, *, recorded: bool = True) -> Folder:
    """Reads the record and the configuration of a folder.

    Args:
        path: The folder.
        recorded: Whether it must have a `tabzoo.json`.

    Raises:
        InputError: The folder does not exist, or has no weights in it.
        WeightsError: The record or the configuration can't be used.
    """
    if not (path / WEIGHTS).is_file():
        raise InputError(
            f"{path}: expected a folder with {WEIGHTS}, {CONFIG} and {RECORD}, as a finished run, `tabzoo convert` and "
            f"`tabzoo download` write it; {f'{WEIGHTS} is missing' if path.is_dir() else 'the folder does not exist'}"
        )
    config = read_config(path / CONFIG)
    record = read_record(path / RECORD) if recorded or (path / RECORD).exists() else None
    if record and record.name.split(".")[0] != config.architecture:
        raise WeightsError(
            f"{path}: {RECORD} describes {record.name}, but the architecture in {CONFIG} is {config.architecture}"
        )
    return Folder(path=path, config=config, record=record)


def verify(path: Path) -> Verified:
    """Reads a weights folder or a single .safetensors file completely and checks it against its record.

    Raises:
        InputError: The file or folder does not exist.
        WeightsError: The weights differ from the record, or are not valid.
    """
    if path.is_file() and not (path.name == WEIGHTS and (path.parent / RECORD).exists()):
        return Verified(*read_tensors(path), None)
    folder = read_folder(path.parent if path.is_file() else path)
    return Verified(*read_tensors(folder.weights, folder.digest), folder)


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
    """Writes weights, configuration and model card, then `tabzoo.json`, which marks the folder as complete.

    Args:
        folder: An existing folder.
        weights: Tensors, named as in timm.
        config: The result of `timm_config`.
        name: timm name with tag.
        provenance: For the record: where the weights come from.
        made_by: End of the card's first sentence, after "A backbone for industrial visual inspection, ".
        facts: The rest of the card, Markdown.

    Raises:
        WriteError: A file can't be written.
    """
    tensors = {key: value.detach().cpu().contiguous() for key, value in weights.items()}
    with whole_file(folder / WEIGHTS) as file:
        # Only one metadata entry: several are written in any order, and equal weights should make equal files.
        save_file(tensors, str(file), metadata={"format": "pt"})
    write_json(folder / CONFIG, config)
    license = config["pretrained_cfg"]["license"]
    with whole_file(folder / CARD) as file:
        file.write_text(folder_card(name, license=license, made_by=made_by, facts=facts), encoding="utf-8")
    record = {
        "name": name,
        "weights": {"file": WEIGHTS, **Digest.of(folder / WEIGHTS)._asdict()},
        "license": license,
        **provenance,
        "tabzoo_version": __version__,
        "created": now(),
    }
    write_json(folder / RECORD, record)


def now() -> str:
    """The time in ISO format, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def copy_folder(source: Path, to: Path) -> None:
    """Copies the files that belong to the weights into an existing folder, without a run's checkpoints and paths.

    Raises:
        InputError: A file can't be read.
        OSError: A file can't be written.
    """
    for name in _COPIED:
        if (source / name).is_file():
            try:
                file = (source / name).open("rb")
            except OSError as error:
                raise InputError(f"{source / name}: can't be read: {error.strerror}") from error
            with file, (to / name).open("wb") as copy:
                shutil.copyfileobj(file, copy, 1 << 20)


def check_new(final: Path) -> None:
    """Checks that a folder is new or empty.

    Raises:
        InputError: It is not.
        WriteError: It can't be looked into.
    """
    with writing(final):
        used = final.is_symlink() or (final.exists() and (not final.is_dir() or any(final.iterdir())))
    if used:
        raise InputError(f"{final}: already exists. Name a folder that is new or empty.")


@contextmanager
def new_folder(final: Path, *, copy_of: Path | None = None) -> Iterator[Path]:
    """Gives a folder to fill, which gets its final name at the end; after an error nothing of it is left.

    Args:
        final: Its final name.
        copy_of: The folder that errors about the content name, since the copy is gone by then.

    Raises:
        InputError: The final folder exists and is not empty.
        WriteError: It can't be written.
    """
    check_new(final)
    place = Path(os.path.abspath(final))  # "." has no name of its own
    temporary = place.with_name(f".{for_path(place.name)}.{uuid.uuid4().hex}")
    try:
        with writing(final):
            temporary.mkdir(parents=True)
            yield temporary
            for path in temporary.iterdir():
                with path.open("rb+") as file:
                    os.fsync(file.fileno())  # some disks, such as network disks, report only now that they are full
            os.replace(temporary, place)  # replaces an empty folder too
    except WriteError as error:
        raise WriteError(str(error).replace(str(temporary), str(final))) from error
    except (InputError, WeightsError) as error:
        raise type(error)(str(error).replace(str(temporary), str(copy_of or final))) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)

"""`tabzoo publish`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from tabzoo.command import say
from tabzoo.errors import InputError
from tabzoo.flags import Switch, non_empty
from tabzoo.hub.license_terms import explain_license, is_noncommercial
from tabzoo.hub.publish import Package, pack, publish
from tabzoo.hub.record import CARD, Record
from tabzoo.plain import for_lines

__all__ = ["Publish"]


@dataclass(frozen=True, kw_only=True)
class Publish:
    """Publish a weights folder to the Hugging Face Hub."""

    examples: ClassVar[tuple[str, ...]] = (
        "tabzoo publish runs/mine --repo ORG/resnet18.mine --license cc-by-nc-sa-4.0 --dry-run",
        "tabzoo publish runs/mine --repo ORG/resnet18.mine --results runs/compared/results.jsonl --version v2",
    )

    folder: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DIR")]
    """A finished run, or what `tabzoo convert` made."""
    repo: Annotated[str, tyro.conf.arg(metavar="ORG/NAME")]
    """Created if it does not exist; NAME as in tabzoo.json."""
    version: Annotated[str, tyro.conf.arg(metavar="TAG")] = "v1"
    """Tag of this version; an existing one never changes."""
    license: Annotated[str | None, tyro.conf.arg(metavar="SPDX")] = None
    """Licence of the weights, if it is another than in the folder; the licence of the training images limits it."""
    results: Annotated[tuple[str, ...] | None, tyro.conf.arg(metavar="FILE ...")] = None
    """results.jsonl of the benchmark, for the card."""
    datasets: Annotated[tuple[str, ...] | None, tyro.conf.arg(metavar="NAME ...")] = None
    """Training data, for the card's metadata."""
    private: Switch = False
    """If the repository is created, make it private."""
    dry_run: Switch = False
    """Check everything and show the card; send nothing to the Hub."""

    def run(self) -> int:
        """Shows what is published, publishes it, and prints its entry for the table."""
        package = pack(
            Path(non_empty("DIR", self.folder)),
            self.repo,
            version=self.version,
            license=self.license,
            results=[Path(file) for file in _each_given("--results", self.results)],
            datasets=_each_given("--datasets", self.datasets),
        )
        record = package.record
        _explain_license(package)
        print(
            f"{record.name}, licence {record.license}, SHA-256 {record.digest.sha256}, as {self.version} of {self.repo}:"
        )
        for name, content in package.files.items():
            print(f"  {name:30}{len(content):>12,} bytes")
        if self.dry_run:
            print(
                f"\n{for_lines(package.files[CARD].decode())}\nNothing was sent. Without --dry-run, this is published."
            )
            _warn_of_demo(record)
            return 0
        _warn_of_demo(record)
        commit = publish(package, private=self.private)
        print("Published, read back, and compared byte by byte. For tabzoo's table (tabzoo/hub/table.py):")
        print(_entry(package, commit))
        return 0


def _each_given(flag: str, texts: tuple[str, ...] | None) -> list[str]:
    if texts == ():
        raise InputError(f"{flag}: no value given; name at least one, or leave {flag} out")
    return [non_empty(flag, text) for text in texts or ()]


def _explain_license(package: Package) -> None:
    now, before = package.record.license, package.former_license
    print(f"Licence {now}: {explain_license(now)}.")
    if before and is_noncommercial(before) and not is_noncommercial(now):
        say(
            f"warning: the folder says {before}, which allows no commercial use; {now} does not say so. Publish it only if the "
            f"licence of all training images allows that: MVTec AD's, for one, does not."
        )


def _warn_of_demo(record: Record) -> None:
    text = record.content.get("text")
    if isinstance(text, dict) and text.get("pretrained") == "untrained":
        say(f"warning: the text tower of {record.name} was untrained: these weights are a demo, not a usable backbone")


def _entry(package: Package, commit: str) -> str:
    sha256, size = package.record.digest
    return f"""        release=Release(
            repository="{package.repository}",
            commit="{commit}",
            sha256="{sha256}",
            size={size},
        ),"""

"""`python -m tabzoo.hub list|info|download|verify|install|uninstall|convert|publish`, also as `tabzoo list` and so on."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from tabzoo.command import run_commands, show
from tabzoo.errors import InputError
from tabzoo.flags import Switch, non_empty
from tabzoo.hub import load, store
from tabzoo.hub.card import load_line
from tabzoo.hub.convert import ARCHITECTURES, Architecture, convert
from tabzoo.hub.folder import verify
from tabzoo.hub.listing import describe, lines
from tabzoo.hub.overview import overview, print_overview
from tabzoo.hub.publish_command import Publish
from tabzoo.plain import for_terminal, plain_json

__all__ = ["main"]

_Dir = Annotated[str, tyro.conf.arg(metavar="DIR")]
_Name = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")]


def main(argv: Sequence[str] | None = None, *, prog: str = "python -m tabzoo.hub") -> int:
    """Runs the command line; returns 0, or 2 for a mistake."""
    return run_commands(_COMMANDS, argv, prog=prog, description="Get, verify and install weights.")


@dataclass(frozen=True, kw_only=True)
class List:
    """List tabzoo's weights and the installed ones: state and licence."""

    examples: ClassVar[tuple[str, ...]] = (
        "tabzoo list",
        "tabzoo list --json",
    )

    json: Switch = False
    """Print JSON."""

    def run(self) -> int:
        """Prints one line for each name."""
        if self.json:
            print(plain_json([describe(one.name) for one in overview()]))
        else:
            print_overview()
        return 0


@dataclass(frozen=True, kw_only=True)
class Info:
    """Show everything known about some weights."""

    examples: ClassVar[tuple[str, ...]] = (
        "tabzoo info resnet18.tab_mvtec",
        "tabzoo info resnet18.tab_mvtec --json",
    )

    name: _Name
    """One of tabzoo's names, or an installed one."""
    json: Switch = False
    """Print JSON."""

    def run(self) -> int:
        """Prints what `describe` knows."""
        known = describe(non_empty("NAME", self.name))
        if self.json:
            print(plain_json(known))
            return 0
        for line in lines(known):
            show(line)
        return 0


@dataclass(frozen=True, kw_only=True)
class Download:
    """Download weights into a folder, for machines without network."""

    examples: ClassVar[tuple[str, ...]] = (
        "tabzoo download resnet18.tab_mvtec --to tab_mvtec",
        "tabzoo download hf-hub:ORG/resnet18.mine@v1 --to mine",
    )

    source: _Name
    """A name, or hf-hub:ORG/NAME@COMMIT."""
    to: _Dir
    """New or empty folder."""
    org: Annotated[str | None, tyro.conf.arg(metavar="ORG")] = None
    """Take the name from this organisation on the Hub, which you trust."""
    cache_dir: Annotated[str | None, tyro.conf.arg(metavar="DIR")] = None
    """Cache folder of huggingface_hub; its own by default."""

    def run(self) -> int:
        """Downloads and says how to use the folder."""
        source, to = non_empty("NAME", self.source), non_empty("--to", self.to)
        for flag, value in (("--org", self.org), ("--cache-dir", self.cache_dir)):
            if value is not None:
                non_empty(flag, value)
        made = load.download(source, to, organisation=self.org, cache_dir=self.cache_dir)
        folder = for_terminal(str(made))
        print(f"Made {folder}. On the machine without network:")
        print(f'  timm.create_model("local-dir:{folder}", pretrained=True)')
        print(f"  tabzoo install NAME {folder}")
        return 0


@dataclass(frozen=True, kw_only=True)
class Verify:
    """Verify a weights folder against its record."""

    examples: ClassVar[tuple[str, ...]] = (
        "tabzoo verify runs/mine",
        "tabzoo verify runs/mine/model.safetensors",
    )

    path: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DIR|FILE")]
    """A weights folder, or a .safetensors file."""
    json: Switch = False
    """Print JSON."""

    def run(self) -> int:
        """Prints the digest, and whether it was compared with a record."""
        path = Path(non_empty("DIR|FILE", self.path))
        _, digest, folder = verify(path)
        record = folder.record if folder else None
        if self.json:
            known = {"path": str(path), **digest._asdict(), "record": record.content if record else None}
            print(plain_json(known))
            return 0
        show(f"{path}: SHA-256 {digest.sha256}, {digest.size:,} bytes")
        if record:
            print(f"matches its record: {record.name}, licence {record.license}")
        else:
            print("the file is readable; no tabzoo.json found, so its checksum was not verified")
        return 0


@dataclass(frozen=True, kw_only=True)
class Install:
    """Install weights under a name on this machine."""

    examples: ClassVar[tuple[str, ...]] = (
        "tabzoo install resnet18.my_factory runs/mine",
        "tabzoo install resnet18.tab_mvtec authors.pth",
    )

    name: _Name
    """One of tabzoo's, or one of your own such as resnet18.my_factory."""
    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="FROM")]
    """A run's output, a downloaded folder, or a checkpoint of the authors."""
    state_dict: Annotated[str | None, tyro.conf.arg(metavar="KEY")] = None
    """Which of several state dicts in a checkpoint, such as state_dict_ema or teacher."""

    def run(self) -> int:
        """Installs and says how to load the weights."""
        source = Path(non_empty("FROM", self.source))
        entry = load.install(non_empty("NAME", self.name), source, state_dict=self.state_dict)
        show(f"Installed {entry.name} in {entry.folder.path}. From now on:")
        print("  import tabzoo, timm")
        print(f'  timm.create_model("{entry.name}", pretrained=True)')
        return 0


@dataclass(frozen=True, kw_only=True)
class Uninstall:
    """Remove installed weights."""

    examples: ClassVar[tuple[str, ...]] = ("tabzoo uninstall resnet18.my_factory",)

    name: _Name
    """An installed name."""

    def run(self) -> int:
        """Removes the entry."""
        store.uninstall(non_empty("NAME", self.name))
        show(f"Removed {self.name}.")
        return 0


@dataclass(frozen=True, kw_only=True)
class Convert:
    """Convert a checkpoint of the authors to a weights folder."""

    examples: ClassVar[tuple[str, ...]] = (
        "tabzoo convert authors.pth --name resnet18.tab_mvtec --to tab_mvtec",
        "tabzoo convert mine.pth --name resnet50.my_factory --license apache-2.0 --to my_factory",
    )

    checkpoint: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="CHECKPOINT")]
    """A file saved by torch.save."""
    to: _Dir
    """New or empty folder."""
    name: str
    """Such as resnet18.tab_mvtec; or only a tag, with --arch."""
    arch: Annotated[Architecture | None, tyro.conf.arg(metavar="{" + ",".join(ARCHITECTURES) + "}")] = None
    """Architecture, if --name is only a tag."""
    license: str | None = None
    """Licence of the weights, an SPDX identifier; known for tabzoo's own names."""
    state_dict: Annotated[str | None, tyro.conf.arg(metavar="KEY")] = None
    """Which of several state dicts in a checkpoint, such as state_dict_ema or teacher."""

    def run(self) -> int:
        """Converts and says how to use the folder."""
        name = self.name if "." in non_empty("--name", self.name) else f"{self.arch or ARCHITECTURES[0]}.{self.name}"
        if self.arch and not name.startswith(f"{self.arch}."):
            raise InputError(f"--arch {self.arch} and --name {name} are of two architectures; leave --arch out")
        checkpoint, to = Path(non_empty("CHECKPOINT", self.checkpoint)), Path(non_empty("--to", self.to))
        convert(checkpoint, to, name=name, license=self.license, state_dict=self.state_dict)
        folder = for_terminal(str(to))
        print(f"Made {folder}. To load it here, or to install it under its name:")
        print("  import timm")
        print(f"  {load_line(f'local-dir:{folder}')}")
        print(f"  tabzoo install {name} {folder}")
        return 0


_COMMANDS = {
    "list": List,
    "info": Info,
    "download": Download,
    "verify": Verify,
    "install": Install,
    "uninstall": Uninstall,
    "convert": Convert,
    "publish": Publish,
}

if __name__ == "__main__":
    sys.exit(main())

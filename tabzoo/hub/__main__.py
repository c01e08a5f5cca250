"""`python -m tabzoo.hub list|info|download|verify|install|uninstall|convert|publish`, also as `tabzoo list` and so on."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tabzoo.command import Parser, run_command
from tabzoo.hub import convert, listing, publish, store
from tabzoo.hub.folders import verify
from tabzoo.hub.load import download
from tabzoo.plain import for_terminal, plain_json

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns 0, or 2 for a mistake."""
    parser: argparse.ArgumentParser = Parser(prog="python -m tabzoo.hub", description="Get, check and keep weights.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add_command in (listing.add_command, _add_commands, convert.add_command, publish.add_command):
        add_command(commands)
    return run_command(parser, argv)


def _add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    fetching = commands.add_parser("download", help="download weights into a folder, for machines without network")
    fetching.add_argument("source", metavar="NAME", help="a name, or hf-hub:ORG/NAME@COMMIT")
    fetching.add_argument("--to", type=Path, required=True, metavar="DIR", help="new or empty folder")
    fetching.add_argument("--org", help="take the name from this Hub organisation, which you trust")
    fetching.add_argument("--cache-dir", metavar="DIR", help="of huggingface_hub; its own by default")
    fetching.set_defaults(run=_download)
    verifying = commands.add_parser("verify", help="verify a weights folder against its record")
    verifying.add_argument("path", type=Path, metavar="DIR|FILE")
    verifying.add_argument("--json", action="store_true", help="for machines")
    verifying.set_defaults(run=_verify)
    installing = commands.add_parser("install", help="install weights under a name on this machine")
    installing.add_argument(
        "name", metavar="NAME", help="one of tabzoo's, or one of your own such as resnet18.my_factory"
    )
    installing.add_argument(
        "source", type=Path, metavar="FROM", help="a run's output, a downloaded folder, or a checkpoint of the authors"
    )
    convert.add_choice(installing)
    installing.set_defaults(run=_install)
    removing = commands.add_parser("uninstall", help="remove installed weights")
    removing.add_argument("name", metavar="NAME")
    removing.set_defaults(run=_uninstall)


def _download(options: argparse.Namespace) -> int:
    folder = for_terminal(
        str(download(options.source, options.to, organisation=options.org, cache_dir=options.cache_dir))
    )
    print(f"Made {folder}. On the machine without network:")
    print(f'  timm.create_model("local-dir:{folder}", pretrained=True)')
    print(f"  tabzoo install NAME {folder}")
    return 0


def _verify(options: argparse.Namespace) -> int:
    _, digest, folder = verify(options.path)
    record = folder.record if folder else None
    if options.json:
        known = {"path": str(options.path), **digest._asdict(), "record": record.content if record else None}
        print(plain_json(known))
        return 0
    print(f"{for_terminal(str(options.path))}: SHA-256 {digest.sha256}, {digest.size:,} bytes")
    if record:
        print(f"as its record says: {record.name}, licence {record.license}")
    else:
        print("the file is readable; no tabzoo.json found, so its checksum was not verified")
    return 0


def _install(options: argparse.Namespace) -> int:
    entry = store.install(options.name, options.source, state_dict=options.state_dict)
    print(f"Installed {entry.name} in {for_terminal(str(entry.folder.path))}. From now on:")
    print("  import tabzoo, timm")
    print(f'  timm.create_model("{entry.name}", pretrained=True)')
    return 0


def _uninstall(options: argparse.Namespace) -> int:
    store.uninstall(options.name)
    print(f"{for_terminal(options.name)} is taken away.")
    return 0


if __name__ == "__main__":
    sys.exit(main())

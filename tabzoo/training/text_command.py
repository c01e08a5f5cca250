"""`tabzoo text`: text features alone, without photos, for pre-training on a machine without network."""

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from tabzoo.command import run_command, say, show
from tabzoo.compute import choose_device
from tabzoo.data.class_words import folder_words, is_words
from tabzoo.errors import InputError, WeightsError, brief, count
from tabzoo.flags import check_number
from tabzoo.training.clip import text_width
from tabzoo.training.prompts import PromptSet, load_prompts
from tabzoo.training.recipe import Texts
from tabzoo.training.text import TextFeatures, obtain_text_features

__all__ = ["Text", "main"]

_LONGEST = 200
"""Characters of a name."""


@dataclass(frozen=True, kw_only=True)
class Text:
    """Make the text features of some products alone, without photos: for pre-training on a machine without network.

    Run it where there is a network, copy the file, and name it there as `tabzoo pretrain --text-pretrained FILE`.
    """

    examples: ClassVar[tuple[str, ...]] = (
        'tabzoo text --class-names "metal nut" screw cable --output text_features.safetensors',
        "tabzoo text --class-names screw --prompts authors --output text_features.safetensors",
    )

    class_names: Annotated[Sequence[str], tyro.conf.arg(metavar="WORDS [WORDS ...]", help_behavior_hint="(required)")]
    """The products as words, such as "metal nut", or as the names of their folders, such as metal_nut."""
    output: Annotated[Path, tyro.conf.arg(metavar="FILE")]
    """File to write; its name ends with .safetensors, and it must not exist yet."""
    text_model: Annotated[str, tyro.conf.arg(metavar="NAME")] = Texts.text_model
    """open_clip model whose text tower is used."""
    text_pretrained: Annotated[str, tyro.conf.arg(metavar="TAG|FILE")] = Texts.text_pretrained
    """open_clip weights tag, a checkpoint file, or untrained (for trying things out)."""
    prompts: Annotated[str, tyro.conf.arg(metavar="NAME|FILE")] = Texts.prompts
    """Prompt set: tab (the paper's), authors (their code's), or FILE.yaml. Pre-training has to name the same."""
    seed: Annotated[int, tyro.conf.arg(metavar="S")] = 0
    """Seed of the untrained tower's weights; without effect otherwise."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto takes the GPU if there is one."""

    def run(self) -> int:
        """Writes the file and says how to use it."""
        self._check()
        prompts, words = load_prompts(self.prompts), _words(self.class_names)
        text_width(self.text_model, self.text_pretrained)
        self._make_folder()
        self._features(words, prompts).save(self.output)
        show(f"Made {self.output}: texts of {count(len(words), 'name')}: {', '.join(words)}.")
        show("Copy it to the machine without network. There, with a folder of good images for DIR:")
        show(f"  {self._next_command()}")
        show(
            "Initial weights need no network with --init FILE: model.safetensors of https://huggingface.co/timm/resnet18.tv_in1k."
        )
        show('Folders that have other names than these words: add --class-names FOLDER "WORDS" for each.')
        return 0

    def _check(self) -> None:
        if not self.class_names:
            raise InputError('--class-names: expected at least one name, such as "metal nut"')
        if self.output.suffix != ".safetensors":
            raise InputError(f"--output {self.output}: expected a name that ends with .safetensors")
        if self.output.exists() or self.output.is_symlink():
            raise InputError(f"--output {self.output}: already exists. Name a new file, or delete that one.")
        check_number("seed", self.seed, least=0)

    def _make_folder(self) -> None:
        """Before the texts are computed, which takes minutes."""
        folder = self.output.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"--output {self.output}: its folder can't be made: {brief(error)}") from error
        if not os.access(folder, os.W_OK):
            raise InputError(f"--output {self.output}: can't write into the folder {folder}")

    def _features(self, words: dict[str, str], prompts: PromptSet) -> TextFeatures:
        try:
            return obtain_text_features(
                words,
                text_model=self.text_model,
                text_pretrained=self.text_pretrained,
                prompts=prompts,
                device=choose_device(self.device),
                seed=self.seed,
            )
        except WeightsError as error:  # it advises to type the very command that was typed
            raise WeightsError(
                f"the text weights {self.text_pretrained} of {self.text_model} can't be fetched: "
                f"{brief(error.__cause__ or error)}. Type this command on a machine with a network, and copy the file; or name "
                f"open_clip's checkpoint file: --text-pretrained CHECKPOINT"
            ) from error

    def _next_command(self) -> str:
        command = ["tabzoo", "pretrain", "--recipe", "resnet18.tab_mvtec", "--data", "DIR"]
        command += ["--text-pretrained", str(self.output)]
        for flag in ("text_model", "prompts"):
            if (value := getattr(self, flag)) != getattr(Texts, flag):
                command += [f"--{flag.replace('_', '-')}", value]
        return shlex.join(command)


def _words(names: Sequence[str]) -> dict[str, str]:
    """Each name as it was typed, and as pre-training reads it from a folder: whichever of them a run asks for is there."""
    for name in names:
        if not name.strip():
            raise InputError("--class-names: '' given, expected words such as \"metal nut\"")
        if len(name) > _LONGEST:
            raise InputError(
                f"--class-names: '{name[:40]}...' has {len(name):,} characters, expected a few words: the text tower reads "
                f"only the first 77 pieces of words of a sentence"
            )
    read = folder_words(list(dict.fromkeys(names)), "folder")
    for name in names:
        if not is_words(read[name]):
            say(
                f'--class-names: {name!r} has no word that says what the product is; better are words such as "metal nut".'
            )
    return {words: words for name in names for words in (read[name], name)}


def main(argv: Sequence[str] | None = None, *, prog: str = "python -m tabzoo.training.text_command") -> int:
    """Runs the command line; returns 0, or 2 for a mistake."""
    return run_command(Text, argv, prog=prog)


if __name__ == "__main__":
    sys.exit(main())

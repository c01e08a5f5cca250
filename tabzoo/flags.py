"""Dataclasses as flags, by tyro: docstrings are the help, and mistakes are told in a line or two of plain words."""

import io
import re
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from types import MappingProxyType
from typing import Annotated, Any, Union, get_args

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from tabzoo.errors import InputError, did_you_mean
from tabzoo.plain import for_lines

__all__ = ["Switch", "check_number", "check_white_level", "non_empty", "optional", "parse"]

Switch = Annotated[bool, tyro.conf.FlagCreatePairsOff]
"""A flag that is given or not, without a `--no-` beside it."""

_LARGEST = 2**31 - 1
_MOST_EXAMPLES = 3

_REGISTRY = ConstructorRegistry()


def parse(
    kind: Any,
    argv: Sequence[str] | None,
    *,
    prog: str,
    commands: Mapping[str, type] = MappingProxyType({}),
    elsewhere: Mapping[str, str] = MappingProxyType({}),
    **options: Any,
) -> Any:
    """The arguments as an object of this type.

    Args:
        kind: A dataclass, or a union of subcommands.
        argv: The arguments; those of the process if not given.
        prog: What a user types before them.
        commands: Name of each subcommand to its dataclass. `--help` ends with what their `examples` hold.
        elsewhere: Flags that a user may expect to the sentence that says what to do instead.
        options: More of `tyro.cli`.

    Raises:
        SystemExit: An argument is wrong (code 2), or is --help (code 0).
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        with redirect_stderr(io.StringIO()) as box:
            return tyro.cli(kind, args=arguments, prog=prog, registry=_REGISTRY, **options)
    except SystemExit as error:
        if error.code:
            command = [prog, *arguments[:1]] if arguments[:1] and arguments[0] in commands else [prog]
            said = re.sub(r"^[A-Z]\w*: (?=--)", "", _reworded(box.getvalue()))  # tyro begins with the name of the class
            # Where something is missing, a flag that does not exist is perhaps meant for it.
            if said.startswith("missing: ") or said.endswith("a value is missing"):
                said = _unknown_flag(kind, command[1:], arguments, options) or said
            instead = elsewhere.get(said.partition(":")[0]) if ": no such flag." in said else None
            said = f"{said.partition('.')[0]}. {instead}" if instead else said
            print(for_lines(f"error: {said}\nSee {' '.join(command)} --help"), file=sys.stderr)
        else:
            print(_examples(kind, commands, arguments), end="")
        raise


def _examples(kind: Any, commands: Mapping[str, type], arguments: Sequence[str]) -> str:
    """The end of the help: examples of the command, or the first one of each of some subcommands."""
    if commands and (not arguments or arguments[0] not in commands):
        lines = [line for each in commands.values() for line in getattr(each, "examples", ())[:1]][:_MOST_EXAMPLES]
    else:
        lines = list(getattr(commands[arguments[0]] if commands else kind, "examples", ()))
    return "".join(["Examples:\n", *(f"  {line}\n" for line in lines)]) if lines else ""


def optional(metavar: str) -> Any:
    """What `--help` shows for a flag that has no value unless given."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint="")


def non_empty(argument: str, text: str) -> str:
    """The text of an argument, such as an unset variable of a shell; as a path, an empty one would be the current folder.

    Raises:
        InputError: It is empty.
    """
    if not text:
        raise InputError(f"{argument}: '' given, expected a value that is not empty")
    return text


def check_number(flag: str, value: int | None, *, least: int) -> None:
    """Checks the number given to a flag; None passes.

    Raises:
        InputError: It is too small or too large.
    """
    if value is not None and not least <= value <= _LARGEST:
        expected = f"at least {least}" if value < least else f"at most {_LARGEST}"
        raise InputError(f"--{flag} {value}: expected {expected}")


def check_white_level(value: float | None) -> None:
    """Checks a white level; None passes.

    Raises:
        InputError: It is not a finite number above 0.
    """
    if value is not None and not 0 < value < float("inf"):
        raise InputError(f"--white-level {value:g}: expected the pixel value that becomes white, above 0")


def _reworded(box: str) -> str:
    """What a box that tyro has drawn says, in our words; in its own where it says something unknown."""
    first, *others = _sections(box)
    text = " ".join(" ".join(first).split())
    listed = [[line.split()[0] for line in section if re.match(r" {4}\S", line)] for section in (first, *others)]
    if found := re.match(r"Error parsing (\S+): (.*)", text):
        flag, problem = found.groups()
        if re.match("Could not|Failed to", problem):
            form = next((line.strip() for other in others for line in other if line.strip().startswith(flag)), flag)
            problem = f"expected {form}"
        return f"{flag}: {problem}"
    if found := re.match(r"invalid choice '(.*)' for argument '(.*)'\. Expected one of \((.*)\)", text):
        given, flag, rest = found.groups()
        choices = re.findall("'([^']*)'", rest)
        hint = did_you_mean(given, choices)
        return f"{flag}: {given!r} given, expected {', '.join(choices)}{f'.{hint}' if hint else ''}"
    if found := re.match(r"Missing value for argument '(.*)'", text):
        dashed = f". One that begins with a dash is typed as {found[1]}=VALUE" if found[1].startswith("--") else ""
        return f"{found[1]}: a value is missing{dashed}"
    if text.startswith("Missing from"):
        return f"missing: {', '.join(listed[0])}"
    if found := re.match(r"Expected one of \{(.*)\}", text):
        return f"a command is missing: {found[1]}"
    if found := re.match(r"Unrecognized(?: or misplaced)? options: (.*)", text):
        near = [name.rstrip(",") for section in listed[1:] for name in section if name.startswith("--")]
        return _unknown(re.sub(r"\(applied to .*?\)", ",", found[1]), near, others)
    return text


def _unknown_flag(kind: Any, subcommand: list[str], arguments: list[str], options: dict[str, Any]) -> str | None:
    """What is wrong with the first flag that does not exist, or None."""
    with redirect_stdout(io.StringIO()) as help_text, suppress(SystemExit):
        tyro.cli(kind, args=[*subcommand, "--help"], registry=_REGISTRY, **options)
    known = set(re.findall(r"--[a-z][a-z0-9-]*", help_text.getvalue()))
    for argument in arguments:
        flag = argument.partition("=")[0]
        if re.match("--[a-zA-Z]", flag) and flag.replace("_", "-") not in known:
            near = did_you_mean(flag[2:], (name[2:] for name in known)).replace("'", "")
            return f"{flag}: no such flag.{near.replace('mean ', 'mean --')}"
    return None


def _unknown(given: str, near: list[str], sections: list[list[str]]) -> str:
    words = [word for word in re.split(r",? ", given) if word.strip(",")]
    flags = [word.partition("=")[0] for word in words if re.match("--?[a-zA-Z]", word)]
    for section in sections:
        if found := re.match("Available subcommands: (.*)", " ".join(" ".join(section).split())):
            known = found[1].split(", ")
            return f"no command {words[0]!r}; there are {found[1]}.{did_you_mean(words[0], known)}"
    if flags:
        return f"{flags[0]}: no such flag.{f' Did you mean {near[0]}?' if near else ''}"
    return f"unexpected argument {' '.join(words)!r}: the flag before it takes no value, or fewer"


def _sections(box: str) -> list[list[str]]:
    """The lines between the rules of a box, without its border; their indentation tells items from their help."""
    _, *lines = box.splitlines()  # the title is in the border, or, where the output is not UTF-8, above a rule
    bordered = box.startswith("╭")
    sections: list[list[str]] = [[]]
    for line in lines:
        if set(line.strip("│ ")) <= set("─-"):
            sections.append([])
        elif not line.startswith("╰"):  # the lower border
            sections[-1].append(line[2:-1].rstrip() if bordered else line[2:].rstrip())
    return [section for section in sections if section] or [["wrong arguments"]]


def _number(kind: type, words: str) -> Callable[[PrimitiveTypeInfo], PrimitiveConstructorSpec[Any] | None]:
    def parsed(arguments: list[str]) -> Any:
        try:
            return kind(arguments[0])
        except ValueError:
            raise ValueError(f"{arguments[0]!r} given, expected {words}") from None

    def rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
        if info.type is not kind:
            return None
        accepted = (int, float) if kind is float else kind
        return PrimitiveConstructorSpec(
            nargs=1,
            metavar=kind.__name__.upper(),
            instance_from_str=parsed,
            is_instance=lambda value: isinstance(value, accepted) and not isinstance(value, bool),
            str_from_instance=lambda value: [str(value)],
        )

    return rule


def _optional(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """`X | None` takes what X takes: None means that a flag was not given, and is not a word to type."""
    kinds = get_args(info.type)
    if info.type_origin not in (Union, types.UnionType) or len(kinds) != 2 or type(None) not in kinds:
        return None
    (kind,) = (kind for kind in kinds if kind is not type(None))
    inner = ConstructorRegistry.get_primitive_spec(PrimitiveTypeInfo.make(kind, info.markers))
    if not isinstance(inner, PrimitiveConstructorSpec):
        return None
    return PrimitiveConstructorSpec(
        nargs=inner.nargs,
        metavar=inner.metavar,
        choices=inner.choices,
        instance_from_str=inner.instance_from_str,
        is_instance=lambda value: value is None or inner.is_instance(value),
        str_from_instance=lambda value: ["none"] if value is None else inner.str_from_instance(value),
    )


for _rule in (_number(int, "a whole number"), _number(float, "a number"), _optional):
    _REGISTRY.primitive_rule(_rule)

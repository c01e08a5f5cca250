"""Users' YAML: the safe subset, without duplicate keys, which lose values, and aliases, which can grow to gigabytes."""

from typing import Any

import yaml

from tabzoo.errors import brief

__all__ = ["read_yaml"]


class _Loader(yaml.SafeLoader):
    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):  # a few lines of them can stand for gigabytes
            raise yaml.YAMLError(f"line {self.peek_event().start_mark.line + 1}: aliases (*name) are not supported")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key, (key_node, _) in zip(keys, node.value, strict=True):
            if keys.count(key) > 1:  # the last would win
                raise yaml.YAMLError(f"line {key_node.start_mark.line + 1}: '{key}' is given twice")
        return super().construct_mapping(node, deep)


def read_yaml(text: str) -> Any:
    """What a YAML text holds.

    Raises:
        ValueError: It is not valid YAML, or holds an impossible value, a key twice or an alias; the message is one line.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        place = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ValueError(f"{place}{error.problem or brief(error)}") from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except (
        yaml.YAMLError,
        ValueError,
        TypeError,
        AttributeError,
        OverflowError,
    ) as error:  # dates, numbers that can't be
        raise ValueError(brief(error)) from error

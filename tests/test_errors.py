"""Suggestions, and errors of libraries in one line."""

import pytest

from tabzoo.errors import brief, did_you_mean


@pytest.mark.parametrize(
    ("given", "accepted", "near"),
    [
        ("resnet18.tab_mvtek", "resnet18.tab_mvtec", True),
        ("Resnet18.tab_mvtec", "resnet18.tab_mvtec", True),
        ("resnet81.tab_mvtec", "resnet18.tab_mvtec", True),
        ("sdg", "sgd", True),
        ("quikstart", "quickstart", True),
        ("resnet18.foo", "resnet18.gluon_in1k", False),
        ("resnet18.a", "resnet18.b", False),
        ("cupboard", "clipboard_holder", False),
    ],
)
def test_only_near_names_are_suggested(given: str, accepted: str, near: bool) -> None:
    assert did_you_mean(given, [accepted]) == (f" Did you mean '{accepted}'?" if near else "")


def test_advice_to_execute_code_is_cut_off() -> None:
    failed = "Weights only load failed."
    advice = "Re-running `torch.load` with `weights_only` set to `False` will likely succeed"
    changed = "In PyTorch 2.6, we changed the default value of the `weights_only` argument in `torch.load`."
    assert brief(ValueError(f"{failed} {changed} {advice}, ...")) == failed
    assert brief(ValueError(f"{failed} {advice}, ...")) == failed


def test_a_key_alone_says_what_kind_of_error_it_is() -> None:
    assert brief(KeyError(101)) == "KeyError: 101"  # of torch.load, for a file that is no pickle

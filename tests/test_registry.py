"""Names and what they stand for."""

from __future__ import annotations

import pytest

from mtsft_preproc.errors import SettingsError
from mtsft_preproc.registry import Registry, nearest


@pytest.fixture
def colours() -> Registry[int]:
    registry: Registry[int] = Registry("colour", "--colour")
    registry.add("crimson", 1, "red")
    registry.add("azure", 2)
    return registry


def test_a_name_and_its_alias_stand_for_one_entry(colours: Registry[int]) -> None:
    assert (colours.get("crimson"), colours.get("red"), colours.get("azure")) == (1, 1, 2)
    assert (colours.canonical("red"), colours.canonical("azure")) == ("crimson", "azure")


def test_names_come_in_the_order_of_registration_without_aliases(colours: Registry[int]) -> None:
    assert colours.names() == ["crimson", "azure"]
    assert list(colours) == [1, 2]


@pytest.mark.parametrize(
    ("name", "aliases", "taken"),
    [
        ("crimson", (), "crimson"),
        ("red", (), "red"),
        ("new", ("crimson",), "crimson"),
        ("new", ("fresh", "red"), "red"),
    ],
)
def test_a_name_that_is_taken_is_refused_and_nothing_is_added(
    colours: Registry[int], name: str, aliases: tuple[str, ...], taken: str
) -> None:
    with pytest.raises(ValueError, match=f"colour '{taken}' is registered twice"):
        colours.add(name, 3, *aliases)
    assert list(colours) == [1, 2]
    with pytest.raises(SettingsError):
        colours.get("new")
    with pytest.raises(SettingsError):
        colours.get("fresh")


def test_a_discarded_entry_is_gone_with_its_aliases_and_its_names_are_free(colours: Registry[int]) -> None:
    assert colours.aliases("crimson") == ["red"]
    assert colours.aliases("azure") == []
    colours.discard("crimson")
    assert colours.names() == ["azure"]
    for name in ("crimson", "red"):
        with pytest.raises(SettingsError, match="available: azure"):
            colours.get(name)
    colours.add("red", 4)
    assert (colours.get("red"), colours.get("azure")) == (4, 2)


def test_nothing_is_discarded_for_an_alias_or_an_unknown_name(colours: Registry[int]) -> None:
    colours.discard("red")
    colours.discard("zzzz")
    assert (colours.names(), colours.get("red")) == (["crimson", "azure"], 1)


def test_an_unknown_name_is_refused_with_the_nearest_and_all_names(colours: Registry[int]) -> None:
    with pytest.raises(SettingsError) as caught:
        colours.get("crimsen")
    assert str(caught.value) == (
        "--colour: unknown colour 'crimsen'; did you mean 'crimson'? available: azure, crimson, red"
    )


@pytest.mark.parametrize("name", ["Azure", "AZURE", "", "zzzz", "azur"])
def test_nothing_is_guessed(colours: Registry[int], name: str) -> None:
    with pytest.raises(SettingsError, match="available: azure, crimson, red"):
        colours.canonical(name)


def test_the_nearest_names_are_found_whatever_their_case() -> None:
    assert nearest("OUTPT", ["Output", "system"]) == "did you mean 'Output'? available: Output, system"
    assert nearest("colour", ["x", "colors", "Colours"]) == (
        "did you mean 'Colours' or 'colors'? available: Colours, colors, x"
    )
    assert nearest("zzzz", ["b", "a"]) == "available: a, b"
    assert nearest("zzzz", []) == "available: (none)"

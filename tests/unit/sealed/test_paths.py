"""Mirrors strongroom/sealed/paths.py."""

import pytest

from strongroom.errors import ConfigError, FormatError
from strongroom.sealed.paths import check_link, check_path, follow, parent


@pytest.mark.parametrize("path", ["a", "a/b/c", ".hidden", "a b", "ü/日本", "x" * 255, "..a/b.."])
def test_plain_paths(path: str) -> None:
    check_path(path)


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("", "has a part ''"),
        ("/a", "has a part ''"),
        ("a/", "has a part ''"),
        ("a//b", "has a part ''"),
        (".", "has a part '.'"),
        ("a/../b", "has a part '..'"),
        ("..", "has a part '..'"),
        ("x" * 256, "longer than 255"),
        ("ü" * 128, "longer than 255"),
        ("a/" * 2048 + "b", "longer than 4096"),
        ("a\0b", "control character"),
        ("a\nb", "control character"),
        ("a\x7fb", "control character"),
        ("a\udc80", "not UTF-8"),
    ],
)
def test_other_paths_are_refused(path: str, why: str) -> None:
    with pytest.raises(FormatError, match=why):
        check_path(path)


def test_parent() -> None:
    assert [parent("a"), parent("a/b"), parent("a/b/c")] == ["", "a", "a/b"]


NAMES = {"d": True, "d/e": True, "d/e/f": False, "top": False, "up": False, "loop": False, "d/e/back": False}


def check(path: str, target: str, **more: str) -> None:
    links = {path: target, **{key.replace("__", "/"): value for key, value in more.items()}}
    check_link(path, links=links, names=NAMES | dict.fromkeys(links, False))


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("l", "top"),
        ("l", "d/e/f"),
        ("l", "./d//e/../e/f"),
        ("l", "d/e"),
        ("l", "d/"),
        ("d/l", "../top"),
        ("d/e/l", "../../top"),
        ("l", "."),
        ("d/l", ".."),
    ],
)
def test_links_that_stay_inside(path: str, target: str) -> None:
    check(path, target)


@pytest.mark.guarantee("G4")
@pytest.mark.parametrize(
    ("path", "target", "why"),
    [
        ("l", "/etc/passwd", "want a relative target"),
        ("l", "", "want a relative target"),
        ("l", "a\0b", "want a relative target"),
        ("l", "..", "leaves the tree"),
        ("d/l", "../../x", "leaves the tree"),
        ("l", "d/../../tree/top", "leaves the tree"),
        ("l", "nowhere", "not in the tree"),
        ("l", "top/", "not a directory"),
        ("l", "top/..", "not a directory"),
        ("l", "l", "more than 40 hops"),
    ],
)
def test_other_links_are_refused(path: str, target: str, why: str) -> None:
    with pytest.raises(FormatError, match=why):
        check(path, target)


def test_links_are_followed_as_the_kernel_would() -> None:
    check("l", "up/f", up="d/e")
    check("l", "d/e/back/top", d__e__back="../..")
    with pytest.raises(FormatError, match="hops"):
        check("l", "up", up="loop", loop="up")


@pytest.mark.guarantee("G4")
def test_a_link_that_only_looks_inside_is_refused() -> None:
    # By its letters d/e/back/.. is d/e. Followed, d/e/back is the top, and its parent is outside.
    with pytest.raises(FormatError, match="leaves the tree"):
        check("l", "d/e/back/../x", d__e__back="../..")


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("a/b", "a/b"),
        ("/a//b/", "a/b"),
        ("l", "d/x"),
        ("m/x", "d/x"),
        ("m/../n", "n"),
        ("d/up/l", "d/x"),
        (".", ""),
        ("d/..", ""),
    ],
)
def test_paths_are_followed_as_the_kernel_would(path: str, place: str) -> None:
    assert follow(path, {"l": "m/x", "m": "d", "d/up": ".."}) == place


def test_no_path_leads_out() -> None:
    with pytest.raises(ConfigError, match="leaves the tree"):
        follow("a/../..", {})
    with pytest.raises(ConfigError, match="needs more than 40 links"):
        follow("l", {"l": "l"})

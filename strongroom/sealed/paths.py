"""Names that may appear in a sealed tree, and the proof that no link leads out of it.

A path is relative, its parts joined by "/". The reader applies these rules after decryption: they guard
against a sealer's mistake, and keep a hostile one from reaching past the mount point.
"""

from collections.abc import Mapping
from typing import Final

from strongroom.errors import ConfigError, FormatError

MAX_PATH: Final = 4096  # bytes of UTF-8
MAX_PART: Final = 255  # bytes of UTF-8
MAX_HOPS: Final = 40  # links followed on one way, as the kernel does


def check_path(path: str) -> None:
    """Raise FormatError unless this is a plain relative path that any reader can hold."""
    if len(_utf8(path)) > MAX_PATH:
        raise FormatError(f"manifest: path {path[:64]!r}... is longer than {MAX_PATH} bytes")
    for part in path.split("/"):
        if part in ("", ".", ".."):
            raise FormatError(f"manifest: path {path!r} has a part {part!r}, want plain names")
        if len(_utf8(part)) > MAX_PART:
            raise FormatError(f"manifest: path {path!r} has a part longer than {MAX_PART} bytes")
        if any(char < " " or char == "\x7f" for char in part):
            raise FormatError(f"manifest: path {path!r} has a control character")


def parent(path: str) -> str:
    """The directory a path lies in; "" is the root."""
    return path.rpartition("/")[0]


def check_link(path: str, *, links: Mapping[str, str], names: Mapping[str, bool]) -> None:
    """Raise FormatError unless the link at `path` ends at an entry of the same tree.

    `links` maps every link to its target, `names` every entry to whether it is a directory. Each step is
    resolved as the kernel would: a lexical check alone is fooled by a link to a deeper directory followed by
    "..".
    """
    place, rest, hops = parent(path), links[path].split("/"), 1
    if links[path].startswith("/") or not links[path] or "\0" in links[path]:
        raise FormatError(f"manifest: link {path!r} points to {links[path]!r}, want a relative target")
    while rest:
        part = rest.pop(0)
        if part in ("", "."):
            continue
        if part == "..":
            if not place:
                raise FormatError(f"manifest: link {path!r} points to {links[path]!r}, which leaves the tree")
            place = parent(place)
            continue
        place = f"{place}/{part}" if place else part
        if place in links:
            hops += 1
            if hops > MAX_HOPS:
                raise FormatError(f"manifest: link {path!r} needs more than {MAX_HOPS} hops")
            place, rest = parent(place), links[place].split("/") + rest
            # an absolute target is refused when its own link is checked
        elif place not in names:
            raise FormatError(f"manifest: link {path!r} points to {links[path]!r}, which is not in the tree")
        elif rest and not names[place]:
            raise FormatError(f"manifest: link {path!r} goes through {place!r}, which is not a directory")


def follow(path: str, links: Mapping[str, str]) -> str:
    """Where a path leads in a tree whose links were all checked; "" is its top.

    ConfigError when it leaves the tree, or needs more than MAX_HOPS links.
    """
    place, rest, hops = "", path.split("/"), 0
    while rest:
        part = rest.pop(0)
        if part in ("", "."):
            continue
        if part == "..":
            if not place:
                raise ConfigError(f"{path}: leaves the tree")
            place = parent(place)
            continue
        place = f"{place}/{part}" if place else part
        if place in links:
            hops += 1
            if hops > MAX_HOPS:
                raise ConfigError(f"{path}: needs more than {MAX_HOPS} links")
            place, rest = parent(place), links[place].split("/") + rest
    return place


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise FormatError(f"manifest: path {text!r} is not UTF-8") from None

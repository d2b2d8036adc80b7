"""Imports only point down, and the agreement touches nothing outside itself. Held for imports anywhere in a file.

3  processes   every __main__, strongroom/cli, demo, bench
2  services    guest, sidecars
1  machine     guest/machine, strongroom/host
0  agreement   the rest of strongroom: pure, bytes in and values out
"""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests import ROOT

INSTALLED: Final = ("strongroom", "guest", "sidecars")
TOPS: Final = (*INSTALLED, "demo", "bench")
FILES: Final = sorted(path for top in TOPS for path in (ROOT / top).rglob("*.py"))

# Which folders of the agreement each of its folders may use, besides itself and strongroom.errors.
AGREEMENT: Final = {
    "wire": set[str](),
    "keys": {"wire"},
    "evidence": {"wire"},
    "verify": {"wire", "evidence"},
    "appraise": {"wire", "evidence", "verify"},
    "measure": {"wire", "evidence"},
    "ratls": {"wire", "evidence", "verify", "appraise"},
    "broker": {"wire", "keys", "evidence"},
    "sealed": {"wire", "keys"},
    "push": {"wire", "sealed"},
    "receipts": {"wire", "keys", "evidence", "verify"},
    "sealedhttp": {"wire"},
    "errors": set(),
    "__init__": set(),
}
IMPURE: Final = set(
    """OpenSSL aiohttp asyncio concurrent ctypes fcntl glob http importlib inspect io logging mfusepy mmap
    multiprocessing os pickle platform pyroute2 random secrets select selectors shutil signal socket ssl subprocess sys
    syslog systemd tempfile threading time urllib yaml""".split()
)
# Calls that read a clock, a file or a source of randomness, by the last part of their name.
IMPURE_CALLS: Final = set(
    """eval exec generate generate_key generate_private_key getrandom input now open print read_bytes read_text today
    unlink urandom utcnow uuid1 uuid4 write_bytes write_text""".split()
)
FACADES: Final = {  # each of these libraries enters through one module; the demo has its own
    "OpenSSL": {"strongroom.host.tls"},
    "aiohttp": {  # all that goes out; our broker
        "strongroom.host.fetch",
        "strongroom.cli.broker_front",
        "strongroom.cli.broker_server",
        "bench.ingress.plain_python",  # a proxy to compare with
    },
    "cbor2": {"strongroom.wire.cbor"},
    "coincurve": {"strongroom.keys.recoverable"},
    "lxml": {"strongroom.evidence.rim"},
    "mfusepy": {"demo.silicon.tree", "sidecars.fs.live.portable"},
    "orjson": {"sidecars.proxy.bodies"},
    "pynvml": {"guest.machine.gpu"},
    "pyroute2": {"guest.machine.netns"},
    "subprocess": {"strongroom.host.run"},
    "systemd": {"strongroom.host.notify"},
    "uvloop": {"strongroom.host.door.loop"},
    "yaml": {"strongroom.host.yamltext"},
}
EMPTY_NAMES: Final = {"util", "utils", "common", "helper", "helpers", "manager", "managers"}


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def imported(source: str, module: str) -> Iterator[str]:
    """Absolute name of everything `source` imports, relative and inner imports included.

    `from a import b` yields "a.b": whether b is a module or a name in one, its first parts say which floor it is on.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = module.split(".")[: -node.level] if node.level else []
            base = ".".join([*parts, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def floor(name: str) -> int | None:
    """The floor of one of our modules; None for everything that is not ours."""
    parts = [*name.split("."), "", ""]
    if parts[0] not in TOPS:
        return None
    if "__main__" in parts or parts[0] in ("demo", "bench") or parts[:2] == ["strongroom", "cli"]:
        return 3
    if parts[:2] in (["guest", "machine"], ["strongroom", "host"]):
        return 1
    return 0 if parts[0] == "strongroom" else 2


def misdirected(module: str, target: str) -> str | None:
    """Why `module` must not import `target`, or None."""
    here, there = floor(module), floor(target)
    if here is None or there is None:
        return None
    mine, theirs = module.split("."), [*target.split("."), "", ""]
    if there > here:
        return f"floor {here} imports floor {there}"
    if theirs[0] == "demo" and mine[0] not in ("demo", "bench"):
        return "the demo is no part of the product"
    if mine[0] == "strongroom" and theirs[0] != "strongroom":
        return "both sides share strongroom: it knows neither the guest nor its daemons"
    if mine[0] == "guest" and theirs[0] == "sidecars":
        return "guest imports a sidecar"
    if mine[0] == "sidecars" and theirs[0] == "guest":
        return "a sidecar imports guest"
    if mine[0] == theirs[0] == "sidecars" and mine[1] != theirs[1] and theirs[1]:
        return "one sidecar imports another"
    if here == 0:
        return misplaced(mine, theirs)
    return None


def misplaced(mine: list[str], theirs: list[str]) -> str | None:
    """The order inside the agreement."""
    source, target = mine[1], theirs[1]
    if source == target or target in ("", "errors") or target not in AGREEMENT:
        return None
    if target not in AGREEMENT[source]:
        return f"{source} imports {target}"
    if source == "measure" and target == "evidence" and theirs[2] != "eventlog":
        return "measure imports more of evidence than its event log"
    return None


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_imports_only_point_down(path: Path) -> None:
    module = module_of(path)
    wrong = {
        f"{name}: {why}" for name in imported(path.read_text(), module) if (why := misdirected(module, name))
    }
    assert not wrong


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("strongroom.wire.reader", "from strongroom.evidence import snp"),
        ("strongroom.wire.reader", "def read():\n    from ..evidence.snp import SNPReport"),
        ("strongroom.wire.reader", "from .. import verify"),
        ("strongroom.measure.tree", "from strongroom.evidence import bundle"),
        ("strongroom.host.fetch", "import guest.machine.tsm"),
        ("strongroom.host.fetch", "from strongroom.cli import main"),
        ("guest.machine.tsm", "from guest import boot"),
        ("guest.boot", "import sidecars.fs.device"),
        ("guest.boot", "if True:\n    import demo.silicon"),
        ("sidecars.fs.tree", "from sidecars.proxy import door"),
        ("sidecars.fs.tree", "import guest.config"),
        ("strongroom.cli.chat", "import demo.model"),
    ],
)
def test_a_wrong_import_is_seen(module: str, source: str) -> None:
    assert [why for name in imported(source, module) if (why := misdirected(module, name))]


def test_the_agreement_is_all_listed() -> None:
    folders = {path.name for path in (ROOT / "strongroom").iterdir() if list(path.glob("*.py"))}
    assert folders - {"host", "cli"} == {name for name in AGREEMENT if name not in ("errors", "__init__")}


AGREED: Final = [path for path in FILES if floor(module_of(path)) == 0]


def impurities(source: str) -> Iterator[str]:
    for name in imported(source, "strongroom.x.y"):
        if name.partition(".")[0] in IMPURE or name == "pathlib.Path":
            yield f"imports {name}"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in IMPURE_CALLS:
                yield f"line {node.lineno} calls {called}()"


@pytest.mark.parametrize("path", AGREED, ids=module_of)
def test_the_agreement_is_pure(path: Path) -> None:
    assert not list(impurities(path.read_text()))


@pytest.mark.parametrize(
    "source",
    [
        "import os",
        "def f():\n    from time import monotonic",
        "from datetime import datetime\nx = datetime.now()",
        "key = ec.generate_private_key(curve)",
        "open('x')",
        "from pathlib import Path",
    ],
)
def test_an_impurity_is_seen(source: str) -> None:
    assert list(impurities(source))


@pytest.mark.parametrize(("library", "facades"), FACADES.items(), ids=FACADES)
def test_a_library_enters_through_its_facade(library: str, facades: set[str]) -> None:
    importers = {
        module_of(path)
        for path in FILES
        if any(name.partition(".")[0] == library for name in imported(path.read_text(), module_of(path)))
    }
    assert importers <= facades


def test_what_is_installed_is_what_is_there() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {path.parent for path in FILES if path.relative_to(ROOT).parts[0] in INSTALLED}
    assert sorted(settings["packages"]) == sorted(
        ".".join(folder.relative_to(ROOT).parts) for folder in folders
    )
    assert [folder for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []


@pytest.mark.parametrize("folder", ["systemd", "image"])
def test_folders_that_are_no_packages_hold_no_python(folder: str) -> None:
    assert list((ROOT / folder).rglob("*.py")) == []  # or `import systemd` would find the folder


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_names_say_something(path: Path) -> None:
    assert not {*path.stem.split("_"), *path.parent.name.split("_")} & (EMPTY_NAMES | {"data", "info"})
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef):
            assert not node.name.lower().endswith(tuple(EMPTY_NAMES)), node.name

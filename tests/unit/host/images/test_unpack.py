"""Mirrors host/images/: what an image may do to a disk, and what it may not."""

import json
import os
import random
import shutil
import stat
import tarfile
from pathlib import Path

import pytest

from strongroom.errors import ConfigError, FormatError, MachineError, StrongroomError, VerifyError
from strongroom.host.images.layout import Layout
from strongroom.host.images.unpack import Unpacked, unpack_image
from tests.fakes.images import digest_of, entry, make_layout, tar

DIR, SYM, HARD = tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
Entry = tuple[tarfile.TarInfo, bytes]


def folder(name: str, mode: int = 0o755, pax: dict[str, str] | None = None) -> Entry:
    return entry(name, type=DIR, mode=mode, pax_headers=pax or {})


def unpack(tmp_path: Path, *layers: list[Entry], zipped: bool = True) -> Path:
    """The tree of these layers."""
    digest = make_layout(tmp_path / "layout", map(tar, layers), zipped=zipped)
    return unpack_digest(tmp_path, digest)


def unpack_digest(tmp_path: Path, digest: str) -> Path:
    with Layout.open(tmp_path / "layout") as layout:
        done = unpack_image(layout, digest, tmp_path / "dest", key=None, progress=lambda _: None)
    assert isinstance(done, Unpacked)
    return tmp_path / "dest" / "rootfs"


def listing(root: Path) -> dict[str, str]:
    shown = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            shown[name] = f"-> {os.readlink(path)}"
        else:
            shown[name] = "/" if path.is_dir() else path.read_text() if path.is_file() else "fifo"
    return shown


@pytest.mark.parametrize("zipped", [True, False])
def test_layers_lie_upon_each_other(tmp_path: Path, zipped: bool) -> None:
    root = unpack(
        tmp_path,
        [
            folder("./"),
            folder("./usr"),
            entry("./usr/a", b"old"),
            entry("./usr/b", b"kept"),
            entry("x/y/z", b"deep"),
        ],
        [entry("usr/a", b"new"), entry("l", type=SYM, linkname="usr/a"), entry("f", type=tarfile.FIFOTYPE)],
        zipped=zipped,
    )
    want = {
        "usr": "/",
        "usr/a": "new",
        "usr/b": "kept",
        "x": "/",
        "x/y": "/",
        "x/y/z": "deep",
        "l": "-> usr/a",
    }
    assert listing(root) == want | {"f": "fifo"}
    assert sorted(os.listdir(tmp_path / "dest")) == ["config", "rootfs"]
    assert stat.S_IMODE((tmp_path / "dest").stat().st_mode) == 0o700


def test_modes_times_owners_and_names(tmp_path: Path) -> None:
    long = "n" * 200 + "/" + "é" * 100
    root = unpack(
        tmp_path,
        [
            folder("d", 0o1777),
            entry("d/f", b"x", mode=0o4755),
            folder("closed", 0o500),
            entry("closed/f", b"y", mode=0o400, uid=1234, gid=4321),
            entry(long, b"z"),
        ],
    )
    assert stat.S_IMODE((root / "d").stat().st_mode) == 0o1777
    assert stat.S_IMODE((root / "d/f").stat().st_mode) == 0o4755
    assert stat.S_IMODE((root / "closed").stat().st_mode) == 0o500
    assert (root / "d/f").stat().st_mtime == (root / "d").stat().st_mtime == 1_700_000_000
    assert (root / long).read_bytes() == b"z"
    if os.geteuid() == 0:
        assert (root / "closed/f").stat().st_uid == 1234 and (root / "closed/f").stat().st_gid == 4321


def test_whiteouts_hide_what_is_below_and_nothing_of_their_own_layer(tmp_path: Path) -> None:
    root = unpack(
        tmp_path,
        [entry("a/1", b"1"), entry("a/2", b"2"), entry("b/1", b"1"), entry("b/s/1", b"1"), entry("c", b"c")],
        [
            entry("b/s/2", b"2"),
            entry("b/.wh..wh..opq"),
            entry("a/.wh.1"),
            entry(".wh.c"),
            entry(".wh.nothing"),
            entry("no/such/.wh.thing"),
            entry(".wh..wh.plnk"),
            entry("b/3", b"3"),
        ],
    )
    assert listing(root) == {"a": "/", "a/2": "2", "b": "/", "b/s": "/", "b/s/2": "2", "b/3": "3"}


def test_kinds_replace_each_other(tmp_path: Path) -> None:
    root = unpack(
        tmp_path,
        [entry("a/b", b"1"), entry("l", type=SYM, linkname="a"), entry("f", b"f")],
        [entry("a", b"now a file"), folder("l"), entry("l/x", b"x"), folder("f"), entry("f/g", b"g")],
    )
    assert listing(root) == {"a": "now a file", "l": "/", "l/x": "x", "f": "/", "f/g": "g"}


def test_links_are_followed_inside_as_if_the_top_were_the_root(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("precious")
    root = unpack(
        tmp_path,
        [
            folder("usr/lib"),
            entry("lib", type=SYM, linkname="usr/lib"),
            entry("abs", type=SYM, linkname=str(outside)),
            entry("up", type=SYM, linkname="../../../../.."),
            entry("usr/up", type=SYM, linkname="../../../etc"),
        ],
        [
            entry("lib/so", b"so"),
            entry("abs/file", b"inside"),
            entry("up/top", b"top"),
            entry("usr/up/passwd", b"root"),
            entry("again", type=HARD, linkname="abs/file"),
        ],
    )
    shown = listing(root)
    assert (outside / "file").read_text() == "precious" and os.listdir(outside) == ["file"]
    assert shown["usr/lib/so"] == "so" and shown["top"] == "top" and shown["etc/passwd"] == "root"
    assert shown[f"{str(outside)[1:]}/file"] == shown["again"] == "inside"


def test_a_hard_link_is_the_same_file(tmp_path: Path) -> None:
    root = unpack(
        tmp_path,
        [
            entry("a", b"x"),
            entry("b/c", type=HARD, linkname="./a"),
            entry("s", type=SYM, linkname="/etc/shadow"),
        ],
        [entry("t", type=HARD, linkname="s"), entry("a", type=HARD, linkname="a")],
    )
    assert (root / "a").stat().st_ino == (root / "b/c").stat().st_ino
    assert os.readlink(root / "t") == "/etc/shadow"  # the link itself, not what it leads to


HOSTILE: list[tuple[list[Entry], str]] = [
    ([entry("../x", b"x")], "leads outside"),
    ([entry("a/../../x", b"x")], "leads outside"),
    ([entry("n" * 256, b"x")], "more than 255 bytes"),
    ([entry("/".join(["d" * 200] * 25), b"x")], "leads outside, or is no path"),
    ([entry("x", type=tarfile.CHRTYPE, devmajor=1, devminor=3)], "is a device, want none"),
    ([entry("x", type=tarfile.BLKTYPE, devmajor=8, devminor=0)], "is a device, want none"),
    ([entry("x", type=b"Q")], "is of type b'Q'"),
    ([entry("h", type=HARD, linkname="../../etc/passwd")], "leads outside"),
    ([entry("h", type=HARD, linkname="missing")], "leads to no file of the image"),
    ([folder("d"), entry("h", type=HARD, linkname="d")], "leads to no file of the image"),
    (
        [entry("a", type=SYM, linkname="b"), entry("b", type=SYM, linkname="a"), entry("a/x", b"x")],
        "more than 40 links",
    ),
    ([entry("f", b"x"), entry("f/x", b"x")], "not a directory"),
    ([entry(".wh...", b"")], "whiteout '.wh...' is of no name"),
    ([entry(".wh.", b"")], "whiteout '.wh.' is of no name"),
    ([entry("./", b"x")], "top of the image is no directory"),
    ([entry("s", type=SYM, linkname="")], "link has the target ''"),
]


@pytest.mark.parametrize(("entries", "why"), HOSTILE)
def test_hostile_entries_are_refused_and_nothing_stays(
    tmp_path: Path, entries: list[Entry], why: str
) -> None:
    with pytest.raises(FormatError) as caught:
        unpack(tmp_path, [entry("ok", b"ok")], entries)
    assert why.replace("'", "'") in str(caught.value) and "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == ["layout"]


@pytest.mark.guarantee("G4")
def test_a_layer_that_unpacks_to_something_else_is_refused(tmp_path: Path) -> None:
    digest = make_layout(tmp_path / "layout", [tar([entry("a", b"x")])], diff_ids=[digest_of(b"other")])
    with pytest.raises(VerifyError, match=rf"unpacks to sha256:.*, want {digest_of(b'other')}"):
        unpack_digest(tmp_path, digest)
    assert os.listdir(tmp_path) == ["layout"]


@pytest.mark.guarantee("G4")
def test_any_changed_blob_is_refused_before_it_is_looked_at(tmp_path: Path) -> None:
    digest = make_layout(tmp_path / "layout", [tar([entry("a", b"x")])])
    for path in (tmp_path / "layout/blobs/sha256").iterdir():
        content = path.read_bytes()
        for changed in (content[:-1] + bytes([content[-1] ^ 1]), content[:-1], content + b"\0"):
            path.write_bytes(changed)
            with pytest.raises(VerifyError, match=r"has digest|bytes, want"):
                unpack_digest(tmp_path, digest)
        path.unlink()
        with pytest.raises(VerifyError, match="is missing"):
            unpack_digest(tmp_path, digest)
        path.symlink_to("/dev/zero")
        with pytest.raises(StrongroomError):
            unpack_digest(tmp_path, digest)
        path.unlink()
        path.write_bytes(content)
    unpack_digest(tmp_path, digest)


def test_a_tar_cut_anywhere_is_refused(tmp_path: Path) -> None:
    whole = tar([entry("a", b"x" * 600), folder("d"), entry("d/b", b"y")])
    for end in range(0, 512 * 6, 300):
        base = tmp_path / str(end)
        base.mkdir()
        digest = make_layout(base / "layout", [whole[:end]], diff_ids=[digest_of(whole)])
        with pytest.raises((FormatError, VerifyError)):
            unpack_digest(base, digest)
        assert os.listdir(base) == ["layout"]


@pytest.mark.parametrize(
    ("data", "why"),
    [(b"no gzip", "not gzip"), (b"", "gzip ends early"), (b"\x1f\x8b\x08\0\0\0\0\0\0\3", "gzip ends early")],
)
def test_a_layer_that_is_no_gzip(tmp_path: Path, data: bytes, why: str) -> None:
    layout = tmp_path / "layout"
    digest = make_layout(layout, [data], zipped=False)
    manifest = (layout / "blobs/sha256" / digest[7:]).read_bytes()
    zipped = manifest.replace(b"v1.tar", b"v1.tar+gzip")
    (layout / "blobs/sha256" / digest_of(zipped)[7:]).write_bytes(zipped)
    with pytest.raises(FormatError, match=why):
        unpack_digest(tmp_path, digest_of(zipped))
    odd = manifest.replace(b"v1.tar", b"v1.tar+zstd")
    (layout / "blobs/sha256" / digest_of(odd)[7:]).write_bytes(odd)
    with pytest.raises(ConfigError, match="want application/vnd"):
        unpack_digest(tmp_path, digest_of(odd))


def test_what_is_there_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "dest").mkdir()
    with pytest.raises(ConfigError, match="exists, want a new directory"):
        unpack(tmp_path, [entry("a", b"x")])
    with pytest.raises(MachineError, match="want an image layout"), Layout.open(tmp_path / "nothing"):
        pass


def test_the_image_for_this_platform_is_taken_from_an_index(tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    digest = make_layout(layout, [tar([entry("a", b"x")])])
    rows = [
        {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": digest if arch == "amd64" else digest_of(b""),
            "size": 1,
            "platform": {"os": "linux", "architecture": arch},
        }
        for arch in ("arm64", "amd64")
    ]
    index = json.dumps({"schemaVersion": 2, "manifests": rows}).encode()
    (layout / "blobs/sha256" / digest_of(index)[7:]).write_bytes(index)
    assert listing(unpack_digest(tmp_path, digest_of(index))) == {"a": "x"}


def test_tar_files_that_were_tampered_with_end_in_one_of_our_errors(tmp_path: Path) -> None:
    """Their digests are made to fit, so that what is inside is reached."""
    chance = random.Random(7)
    whole = tar(
        [
            folder("d"),
            entry("d/" + "n" * 120, b"x" * 700),
            entry("l", type=SYM, linkname="d"),
            entry("l/h", type=HARD, linkname="d/" + "n" * 120),
            entry("d/.wh.gone"),
            entry("p", b"y", pax_headers={"SCHILY.xattr.user.a": "1"}),
        ]
    )
    outside = sorted(os.listdir(tmp_path))
    ended = 0
    for number in range(300):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        if chance.random() < 0.7:
            mend(data)
        layout = tmp_path / "layout"
        digest = make_layout(layout, [bytes(data)], zipped=False)
        try:
            unpack_digest(tmp_path, digest)
        except StrongroomError as error:
            assert "\n" not in str(error), number  # noqa: PT017
            ended += 1
        shutil.rmtree(tmp_path / "dest", ignore_errors=True)
        shutil.rmtree(layout)
        assert sorted(os.listdir(tmp_path)) == outside, number
    assert 50 < ended < 300


def mend(data: bytearray) -> None:
    """Make every header's checksum fit, where there still is one."""
    for at in range(0, len(data) - 511, 512):
        if data[at + 257 : at + 262] == b"ustar":
            data[at + 148 : at + 156] = b" " * 8
            data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])


DEEP = "/".join(["d"] * 1500)


@pytest.mark.parametrize(
    ("hostile", "words"),
    [
        (entry("a", b"x", pax_headers={"mtime": "inf"}), "is of time inf, want at most"),
        (entry("a", b"x", pax_headers={"mtime": "nan"}), "is of time nan, want at most"),
        (entry("a", b"x", pax_headers={"mtime": "1e300"}), r"is of time 1e\+300, want at most"),
        (folder("a", pax={"mtime": "-1e300"}), r"is of time -1e\+300, want at most"),
        (entry("a", b"x", pax_headers={"uid": str(2**40)}), "has owner 1099511627776, want 0..4294967294"),
        (entry("a", b"x", pax_headers={"gid": str(2**32 - 1)}), "has group 4294967295, want 0..4294967294"),
        (entry("a", type=SYM, linkname="b", pax_headers={"uid": str(2**70)}), "has owner 11805916"),
        (entry(f"{DEEP}/f", b"x"), "is 1501 deep, want at most 256"),
    ],
)
def test_numbers_are_bounded(tmp_path: Path, hostile: Entry, words: str) -> None:
    with pytest.raises(FormatError, match=words):
        unpack(tmp_path, [entry("good", b"x"), hostile])
    assert os.listdir(tmp_path) == ["layout"]


def test_links_lead_no_deeper_than_paths(tmp_path: Path) -> None:
    half = "/".join(["d"] * 200)
    links = [entry("l", type=SYM, linkname=half), entry(f"l/{half}/f", b"x")]
    with pytest.raises(FormatError, match="is 401 deep, want at most 256"):
        unpack(tmp_path, [folder(half)], links)
    assert os.listdir(tmp_path) == ["layout"]


def test_what_an_older_run_left_is_no_hindrance(tmp_path: Path) -> None:
    at = tmp_path / "dest.partial"
    for _ in range(1200):
        at.mkdir()
        os.chdir(at)
        at = Path("d")
    os.chdir(tmp_path)
    unpack(tmp_path, [entry("f", b"x"), entry("/".join(["d"] * 250), b"x")], [entry(".wh.d")])
    assert sorted(os.listdir(tmp_path)) == ["dest", "layout"]

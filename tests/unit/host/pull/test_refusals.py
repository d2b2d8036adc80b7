"""Mirrors host/pull/: answers of a store that are believed at once, and those that never are."""

import fcntl
import os
from pathlib import Path

import pytest

from strongroom.cli.broker_certificate import TLSCertificate
from strongroom.errors import MachineError, ProtocolError, StrongroomError, TransportError, VerifyError
from strongroom.host.pull.pull import Rules
from tests.fakes.pulled import FIRST, INDEX, MANIFEST, ROOT, TAGS, TREE, Site, here
from tests.fakes.stores import Answer, Request, at, serving, times

BAD = [
    (FIRST, Answer(404, b"<Code>NoSuchKey</Code>"), r"404 \(NoSuchKey\), there is no such file"),
    (FIRST, Answer(403, b"<Code>AccessDenied</Code>"), r"403 \(AccessDenied\), want credentials"),
    (FIRST, Answer(401), "answer is 401, want credentials that may read it"),
    (FIRST, Answer(204), "answer is 204, want 200"),
    (FIRST, Answer(206, TREE[FIRST]), "answer is 206, want 200"),
    (FIRST, Answer(200, b"short"), "is 5 bytes, want 70001"),
    (FIRST, Answer(200, bytes(80_000)), "is 80000 bytes, want 70001"),
    (FIRST, Answer(200, b"", {"Content-Encoding": "gzip"}, length=70_001), "answer is compressed"),
    (
        FIRST,
        Answer(302, b"", {"Location": "http://127.0.0.1/x"}),
        "redirects to 'http://127.0.0.1/x', want an https",
    ),
    (FIRST, Answer(302), "redirects to '', want an https url"),
    (FIRST, Answer(302, b"", {"Location": "//a:b@c/"}), "want an https url"),
    (FIRST, Answer(302, b"", {"Location": FIRST[-3:]}), "redirects in a row"),
    ("INDEX", Answer(200, b"{}"), "index: not in canonical form"),
    ("INDEX", Answer(200, INDEX.pack().replace(ROOT.hex().encode(), b"0" * 64)), "index is of root 0000"),
    ("INDEX", Answer(404), "there is no such file"),
]


@pytest.mark.parametrize(("name", "answer", "why"), BAD)
def test_a_no_is_believed_at_once(site: Site, name: str, answer: Answer, why: str) -> None:
    site.store.rules = [at(name, answer), at(FIRST[-3:], answer)]
    with pytest.raises(StrongroomError, match=why) as caught:
        site.pull()
    assert not isinstance(caught.value, TransportError)
    assert "\n" not in str(caught.value) and len(site.asked(name)) == 1
    assert not (site.dest / "MANIFEST").exists()


@pytest.mark.parametrize(
    "said",
    [
        "",
        "bytes 0-70000/70001",
        "bytes 30001-70000/70001",
        "bytes 30000-70001/70001",
        "bytes 30000-29999/70001",
        "bytes 30000-70000/*",
        "bytes 30000-70000/70002",
        "items 30000-70000/70001",
        "bytes 30000-69999/70001",
    ],
)
def test_a_wrong_range_is_not_written(site: Site, said: str) -> None:
    site.store.rules = [
        times(1, at(FIRST, Answer(200, TREE[FIRST], cut=30_000))),
        at(FIRST, Answer(206, TREE[FIRST][30_000:], {"Content-Range": said})),
    ]
    with pytest.raises(ProtocolError, match=r"content-range is|is 70002 bytes, want 70001"):
        site.pull()
    assert (site.dest / f"{FIRST}.partial").read_bytes() == TREE[FIRST][:30_000]


def test_a_shorter_range_than_asked_is_taken(site: Site) -> None:
    def part(request: Request) -> Answer:
        first = int(request.headers["range"][6:-1])
        last = min(first + 15_000, 70_001) - 1
        return Answer(206, TREE[FIRST][first : last + 1], {"Content-Range": f"bytes {first}-{last}/70001"})

    site.store.rules = [times(1, at(FIRST, Answer(200, TREE[FIRST], cut=30_000))), at(FIRST, part)]
    site.pull()
    assert here(site.dest) == TREE


def chunked(content: bytes) -> Answer:
    return Answer(200, b"%x\r\n%b\r\n0\r\n\r\n" % (len(content), content), {"Transfer-Encoding": "chunked"})


def test_an_endless_body_is_cut_off(site: Site) -> None:
    site.store.rules = [at(FIRST, chunked(bytes(1 << 20)))]
    with pytest.raises(ProtocolError, match="sends more than byte 70001"):
        site.pull()
    assert (site.dest / f"{FIRST}.partial").stat().st_size <= 70_001
    site.store.rules = [at(FIRST, chunked(TREE[FIRST]))]
    site.pull()
    assert here(site.dest) == TREE


def test_an_endless_manifest_is_cut_off(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("strongroom.host.pull.pull.MAX_MANIFEST", 1000)
    site.store.rules = [at("MANIFEST", chunked(bytes(5000)))]
    with pytest.raises(ProtocolError, match="answer is longer than 1000 bytes"):
        site.pull()


@pytest.mark.guarantee("G4")
def test_another_manifest_is_refused_before_anything_else_is_asked(site: Site) -> None:
    site.store.files["/m/MANIFEST"] = MANIFEST[:-1] + b"!"
    with pytest.raises(VerifyError, match=rf"root is .*, want {ROOT.hex()}"):
        site.pull()
    assert [request.path for request in site.store.heard] == ["/m/MANIFEST"]


@pytest.mark.guarantee("G4")
def test_other_tags_are_refused(site: Site) -> None:
    site.store.files[f"/m/{INDEX.tags_name}"] = bytes(len(TAGS))
    with pytest.raises(VerifyError, match="sha256 is"):
        site.pull()
    assert not (site.dest / "tags").exists() and not (site.dest / "MANIFEST").exists()


def test_a_redirect_is_followed_without_the_token(site: Site, served: tuple[Path, TLSCertificate]) -> None:
    with serving(served[0]) as other:
        other.files = {"/cdn/x": TREE[FIRST]}
        site.store.rules = [
            at(FIRST, Answer(307, b"", {"Location": f"{other.url}/cdn/x?X-Signature=s3cret"}))
        ]
        site.pull(token="t0ken")
        assert here(site.dest) == TREE
        assert {request.headers["authorization"] for request in site.store.heard} == {"Bearer t0ken"}
        (request,) = other.heard
        assert "authorization" not in request.headers and request.query == "X-Signature=s3cret"
        (site.dest / FIRST).unlink()
        other.rules = [at("x", Answer(403))]
        with pytest.raises(ProtocolError) as caught:
            site.pull(token="t0ken")
        assert "s3cret" not in str(caught.value) and "t0ken" not in str(caught.value)


def test_a_redirect_on_the_same_host_keeps_the_token(site: Site) -> None:
    site.store.files["/elsewhere"] = TREE[FIRST]
    site.store.rules = [at(FIRST, Answer(302, b"", {"Location": "/elsewhere"}))]
    site.pull(token="t0ken")
    assert site.store.asked("/elsewhere")[0].headers["authorization"] == "Bearer t0ken"


def test_a_range_is_asked_for_behind_a_redirect(site: Site, served: tuple[Path, TLSCertificate]) -> None:
    with serving(served[0]) as other:
        other.files = {"/x": TREE[FIRST]}
        cut = Answer(200, TREE[FIRST], {"ETag": other.serve(Request("/x", "", {})).headers["ETag"]}, cut=123)
        other.rules = [times(1, at("/x", cut))]
        site.store.rules = [at(FIRST, Answer(302, b"", {"Location": f"{other.url}/x"}))]
        site.pull()
        assert other.heard[1].headers["range"] == "bytes=123-"
    assert here(site.dest) == TREE


def test_no_room_is_said_before_anything_is_written(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("strongroom.host.pull.landing.Landing.free", lambda _: 100_000)
    with pytest.raises(MachineError, match="bytes are to come, and there is room for 100000"):
        site.pull()
    assert here(site.dest) == {}


def test_nothing_outside_is_touched(site: Site, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    site.dest.mkdir()
    (site.dest / "objects").symlink_to(outside)
    with pytest.raises(MachineError, match="is a link or no directory"):
        site.pull()
    (site.dest / "objects").unlink()
    (site.dest / "objects").mkdir()
    (outside / "file").write_bytes(b"precious")
    (site.dest / f"{FIRST}.partial").symlink_to(outside / "file")
    with pytest.raises(MachineError, match="is a link"):
        site.pull()
    assert (outside / "file").read_bytes() == b"precious" and os.listdir(outside) == ["file"]
    (site.dest / f"{FIRST}.partial").unlink()
    os.mkfifo(site.dest / f"{FIRST}.partial")
    with pytest.raises(MachineError, match="not a regular file"):
        site.pull()


def test_two_pulls_do_not_share_a_directory(site: Site) -> None:
    site.dest.mkdir()
    fd = os.open(site.dest, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        with pytest.raises(MachineError, match="somebody else is writing there"):
            site.pull()
    finally:
        os.close(fd)


def test_what_an_earlier_pull_began_and_nobody_wants_is_swept(site: Site) -> None:
    (site.dest / "objects").mkdir(parents=True)
    for name in (f"objects/{'e' * 32}.partial", f"objects/{'e' * 32}.etag", "objects/mine.partial"):
        (site.dest / name).write_bytes(b"x")
    site.pull()
    assert here(site.dest) == TREE | {"objects/mine.partial": b"x"}


def test_one_failure_ends_all_and_keeps_what_came(site: Site) -> None:
    site.store.rules = [at(f"{5:032x}", Answer(404))]
    with pytest.raises(ProtocolError, match="there is no such file"):
        site.pull(rules=Rules(parallel=1))
    site.store.rules.clear()
    site.pull()
    assert here(site.dest) == TREE


def test_tags_of_the_right_size_and_wrong_bytes_are_brought_again(site: Site) -> None:
    site.pull()
    (site.dest / INDEX.tags_name).write_bytes(b"X" * len(TAGS))
    pulled = site.pull()
    assert (pulled.fetched, pulled.carried) == (1, len(TAGS))
    assert here(site.dest) == TREE

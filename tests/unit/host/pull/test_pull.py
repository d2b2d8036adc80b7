"""Mirrors host/pull/, against stores on loopback that misbehave."""

import asyncio
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from strongroom.broker.resource import VolumeKey
from strongroom.cli.broker_certificate import TLSCertificate
from strongroom.errors import MachineError, ProtocolError, StrongroomError, TransportError, VerifyError
from strongroom.host.fetch import Pin
from strongroom.host.pull.pull import Pulled, Rules, pull
from strongroom.host.pull.web import Web
from strongroom.sealed.index import Index
from tests.fakes.https import certificate
from tests.fakes.sealed import MODEL_KEY, make_sealed
from tests.fakes.stores import Answer, Request, Store, at, serving, times
from tests.unit.sealed.test_by_hand import read_tree

QUICK = Rules(idle_s=2.0, tries=4, first_pause_s=0.01)
OBJECTS = {f"{n:032x}": bytes([n]) * (70_000 + n) for n in range(1, 6)}
MANIFEST = b"a manifest that nobody here can read" * 10
ROOT = sha256(MANIFEST).digest()
TAGS = b"tags" * 100
INDEX = Index(
    root=ROOT,
    manifest_size=len(MANIFEST),
    tags_sha256=sha256(TAGS).digest(),
    tags_size=len(TAGS),
    objects={name: len(content) for name, content in OBJECTS.items()},
)
FIRST = f"objects/{1:032x}"
TREE = {
    "MANIFEST": MANIFEST,
    "INDEX": INDEX.pack(),
    INDEX.tags_name: TAGS,
    **{f"objects/{name}": content for name, content in OBJECTS.items()},
}


@dataclass
class Site:
    """A store with a tree below /m/, and whoever pulls from it."""

    store: Store
    pin: Pin
    dest: Path

    def pull(
        self, *, rules: Rules = QUICK, root: bytes = ROOT, token: str | None = None, **more: Any
    ) -> Pulled:
        source = Web(f"{self.store.url}/m", token)
        return asyncio.run(pull(source, self.dest, pin=self.pin, root=root, rules=rules, **more))

    def asked(self, name: str) -> list[Request]:
        return self.store.asked(f"/m/{name}")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TLSCertificate]:
    directory = tmp_path_factory.mktemp("tls")
    return directory, certificate(directory)


@pytest.fixture
def site(served: tuple[Path, TLSCertificate], tmp_path: Path) -> Iterator[Site]:
    with serving(served[0]) as store:
        store.files = {f"/m/{name}": content for name, content in TREE.items()}
        yield Site(store, Pin(ca_pem=served[1].pem), tmp_path / "dest")


def here(dest: Path) -> dict[str, bytes]:
    return {str(path.relative_to(dest)): path.read_bytes() for path in dest.rglob("*") if path.is_file()}


def test_a_tree_comes_whole(site: Site) -> None:
    seen: list[tuple[int, int]] = []
    pulled = site.pull(progress=lambda done, total: seen.append((done, total)))
    assert here(site.dest) == TREE
    body = INDEX.total - len(MANIFEST)
    assert (pulled.fetched, pulled.carried) == (6, body)
    assert seen[-1] == (body, body) and [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_a_tree_without_objects_comes_too(site: Site) -> None:
    index = Index(
        root=ROOT, manifest_size=len(MANIFEST), tags_sha256=sha256(b"").digest(), tags_size=0, objects={}
    )
    site.store.files = {
        "/m/MANIFEST": MANIFEST,
        "/m/INDEX": index.pack(),
    }  # no tags are asked for: there are none
    site.pull()
    assert here(site.dest) == {"MANIFEST": MANIFEST, "INDEX": index.pack(), index.tags_name: b""}
    assert (site.dest / "objects").is_dir()


def test_what_is_there_is_not_asked_for_again(site: Site) -> None:
    site.pull()
    site.store.heard.clear()
    assert site.pull().fetched == 0
    assert {request.path for request in site.store.heard} == {"/m/MANIFEST", "/m/INDEX"}


def test_an_update_brings_only_what_is_new(site: Site) -> None:
    site.pull()
    new = b"the next release" * 30
    index = Index(
        root=sha256(new).digest(),
        manifest_size=len(new),
        tags_sha256=INDEX.tags_sha256,
        tags_size=len(TAGS),
        objects={**INDEX.objects, "f" * 32: 5},
    )
    site.store.files |= {"/m/MANIFEST": new, "/m/INDEX": index.pack(), f"/m/objects/{'f' * 32}": b"fresh"}
    pulled = site.pull(root=index.root)
    assert (pulled.fetched, pulled.carried) == (1, 5)
    assert (site.dest / "MANIFEST").read_bytes() == new


def test_a_connection_that_breaks_is_continued_where_it_broke(site: Site) -> None:
    def cut(request: Request) -> Answer:
        answer = site.store.serve(request)
        return Answer(answer.status, answer.body, answer.headers, cut=10_000)

    site.store.rules = [times(5, at(FIRST, cut))]
    pulled = site.pull(rules=Rules(idle_s=2.0, tries=2, first_pause_s=0.01))  # each try brings something new
    assert here(site.dest) == TREE and pulled.carried == INDEX.total - len(MANIFEST)
    offsets = [request.headers.get("range") for request in site.asked(FIRST)]
    assert offsets == [None, *(f"bytes={n}0000-" for n in range(1, 6))]
    assert all("if-range" in request.headers for request in site.asked(FIRST)[1:])


def test_another_run_continues_the_first(site: Site) -> None:
    site.store.rules = [
        times(
            1,
            at(
                FIRST, lambda request: Answer(200, TREE[FIRST], site.store.serve(request).headers, cut=20_000)
            ),
        ),
        times(9, at(FIRST, Answer(500))),
    ]
    with pytest.raises(TransportError, match="answer is 500"):
        site.pull()
    assert not (site.dest / "MANIFEST").exists()
    assert (site.dest / f"{FIRST}.partial").stat().st_size == 20_000
    site.store.rules.clear()
    site.store.heard.clear()
    site.pull()
    assert here(site.dest) == TREE
    (request,) = site.asked(FIRST)
    assert request.headers["range"] == "bytes=20000-" and "if-range" in request.headers


def test_a_file_that_changed_meanwhile_starts_over(site: Site) -> None:
    site.store.rules = [
        times(1, at(FIRST, Answer(200, bytes(len(TREE[FIRST])), {"ETag": '"old"'}, cut=30_000)))
    ]
    site.pull()
    assert here(site.dest) == TREE
    assert site.asked(FIRST)[1].headers["if-range"] == '"old"'


def test_a_store_that_ignores_if_range_is_noticed(site: Site) -> None:
    rest = Answer(206, TREE[FIRST][30_000:], {"ETag": '"new"', "Content-Range": "bytes 30000-70000/70001"})
    site.store.rules = [
        times(1, at(FIRST, Answer(200, bytes(70_001), {"ETag": '"old"'}, cut=30_000))),
        times(1, at(FIRST, rest)),
    ]
    site.pull()
    assert here(site.dest) == TREE and "range" not in site.asked(FIRST)[2].headers


def test_a_store_without_ranges_or_etags_starts_over(site: Site) -> None:
    site.store.ranges = site.store.etags = False
    site.store.rules = [times(2, at(FIRST, Answer(200, TREE[FIRST], cut=10_000)))]
    site.pull()
    assert here(site.dest) == TREE


def test_starting_over_for_ever_is_not_progress(site: Site) -> None:
    site.store.ranges = False
    site.store.rules = [at(FIRST, Answer(200, TREE[FIRST], cut=10_000))]
    with pytest.raises(TransportError):
        site.pull()
    assert len(site.asked(FIRST)) == 4


def test_a_busy_store_is_given_the_time_it_asks_for(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    real = asyncio.sleep

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await real(0)

    monkeypatch.setattr("strongroom.host.pull.attempts.asyncio.sleep", sleep)
    site.store.rules = [
        times(1, at(FIRST, Answer(503, b"", {"Retry-After": "7"}))),
        times(1, at(FIRST, Answer(429, b"", {"Retry-After": "999999"}))),
        times(1, at(FIRST, Answer(500, b"", {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}))),
    ]
    site.pull()
    assert slept[:2] == [7.0, 120.0] and slept[2] < 1.0
    assert here(site.dest) == TREE


def test_a_store_that_hangs_is_left(site: Site) -> None:
    rules = Rules(idle_s=0.3, tries=3, first_pause_s=0.01)
    site.store.rules = [times(1, at(FIRST, Answer(200, TREE[FIRST], cut=50_000, hang=True)))]
    site.pull(rules=rules)
    assert here(site.dest) == TREE
    site.store.rules = [at("MANIFEST", Answer(200, b"", hang=True, length=10))]
    with pytest.raises(TransportError, match=r"no answer within 0\.3 s"):
        site.pull(rules=rules)


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


@pytest.mark.parametrize("lasting", [False, True])
def test_a_recheck_brings_damaged_objects_again(
    served: tuple[Path, TLSCertificate], tmp_path: Path, lasting: bool
) -> None:
    sealed = make_sealed(tmp_path)
    key = VolumeKey(key=MODEL_KEY, root=sealed.root, epoch=1)
    name = f"objects/{sealed.objects['model-2.safetensors'].name}"
    tree = here(sealed.path)
    with serving(served[0]) as store:
        store.files = {f"/m/{one}": content for one, content in tree.items()}
        site = Site(store, Pin(ca_pem=served[1].pem), tmp_path / "dest")
        site.pull(root=sealed.root, key=key)
        damaged = bytearray(tree[name])
        damaged[70_000] ^= 1
        (site.dest / name).write_bytes(damaged)
        if lasting:
            store.files[f"/m/{name}"] = bytes(damaged)
        assert site.pull(root=sealed.root, key=key).fetched == 0  # its digest is known to nobody
        rules = replace(QUICK, recheck=True)
        if lasting:
            with pytest.raises(VerifyError, match=f"{name} is not what was sealed"):
                site.pull(root=sealed.root, key=key, rules=rules)
            return
        pulled = site.pull(root=sealed.root, key=key, rules=rules)
        assert (pulled.fetched, pulled.carried) == (1, len(damaged))
        assert site.pull(root=sealed.root, key=key, rules=rules).fetched == 0
    assert read_tree(site.dest, MODEL_KEY) == sealed.contents

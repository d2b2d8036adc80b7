"""Mirrors host/pull/pull.py, against stores on loopback that break off."""

import asyncio
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from strongroom.broker.resource import VolumeKey
from strongroom.cli.broker_certificate import TLSCertificate
from strongroom.errors import TransportError, VerifyError
from strongroom.host.fetch import Pin
from strongroom.host.pull.pull import Rules
from strongroom.sealed.index import Index
from tests.fakes.pulled import (
    FIRST,
    INDEX,
    MANIFEST,
    QUICK,
    ROOT,
    TAGS,
    TREE,
    Site,
    Stage,
    begin,
    here,
)
from tests.fakes.sealed import MODEL_KEY, make_sealed
from tests.fakes.stores import Answer, Request, at, serving, times
from tests.unit.sealed.test_by_hand import read_tree


def test_a_tree_comes_whole(site: Site) -> None:
    stages: list[Stage] = []
    pulled = site.pull(begin=begin(stages))
    assert here(site.dest) == TREE
    body = INDEX.total - len(MANIFEST)
    assert (pulled.fetched, pulled.carried) == (6, body)
    ((what, total, done),) = stages
    assert (what, total, done[-1]) == ("pulling", body, body) and done == sorted(done)


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
        stages: list[Stage] = []
        pulled = site.pull(root=sealed.root, key=key, rules=rules, begin=begin(stages))
        assert (pulled.fetched, pulled.carried) == (1, len(damaged))
        assert [what for what, _, _ in stages] == ["checking", "pulling", "checking"]
        assert all(done[-1] == total for _, total, done in stages)
        assert site.pull(root=sealed.root, key=key, rules=rules).fetched == 0
    assert read_tree(site.dest, MODEL_KEY) == sealed.contents

"""Mirrors host/brokerage/house.py and rulebook.py: what is kept, by whom it can be changed, and what a crash leaves."""

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from strongroom.broker.audit import Audit
from strongroom.broker.resource import ResourceURI
from strongroom.errors import ConfigError, MachineError, VerifyError
from strongroom.host.brokerage import rotation as module
from strongroom.host.brokerage.database import FILE
from strongroom.host.brokerage.house import House
from strongroom.host.brokerage.root import FileRoot, Found
from strongroom.host.secret import Secret
from tests.fakes.house import ACTOR, OTHER, SECRET, URI, decision, do, house, policy, put, references

AT = ResourceURI.parse(URI)


@pytest.fixture
def made(tmp_path: Path) -> Iterator[House]:
    with house(tmp_path / "b") as one:
        put(one)
        yield one


def secret(at: House, number: int = 1, uri: str = URI) -> bytes:
    known = at.rules().resources[ResourceURI.parse(uri)]
    version = known.find(number)
    assert version is not None
    return at.secret(known.uri, version)


def test_what_is_put_is_there_and_after_a_restart(made: House) -> None:
    assert secret(made) == SECRET
    with House(made.directory) as again:
        assert secret(again) == SECRET
        assert again.rules() == made.rules()


@pytest.mark.guarantee("G11")
def test_no_secret_is_in_any_file_or_line(made: House) -> None:
    made.keep_sessions([b"a session that speaks for a guest"])
    made.record([decision()])
    for path in made.directory.iterdir():
        content = path.read_bytes()
        assert SECRET not in content and b"speaks for a guest" not in content, path
        assert path.stat().st_mode & 0o077 == 0, path
    assert "secret" not in repr(made.rules())


def test_a_change_is_seen_by_whoever_has_it_open(made: House) -> None:
    with House(made.directory) as other:
        before = other.rules()
        assert other.rules() is before  # read once, until something changes
        put(made, b"next")
        assert other.rules().resources[AT].last == 2
        assert secret(other, 2) == b"next"
        other.record([decision()])
        assert other.rules() is other.rules()


Tamper = Callable[[sqlite3.Connection], object]
ROWS: dict[str, Tamper] = {
    "policy": lambda db: db.execute("UPDATE resource SET policy = ?", (policy(host_data="any", vmpl=[3]),)),
    "rego": lambda db: db.execute("UPDATE resource SET rego = 'package policy'"),
    "policy moved": lambda db: db.execute(
        "UPDATE resource SET policy = (SELECT policy FROM resource WHERE uri = ?) WHERE uri = ?", (OTHER, URI)
    ),
    "version": lambda db: db.execute("UPDATE version SET epoch = 9"),
    "version removed": lambda db: db.execute("DELETE FROM version"),
    "resource removed": lambda db: db.execute("DELETE FROM resource WHERE uri = ?", (URI,)),
    "revocation removed": lambda db: db.execute("DELETE FROM revocation"),
    "revocation": lambda db: db.execute("UPDATE revocation SET epoch = 0"),
    "references removed": lambda db: db.execute("DELETE FROM reference"),
    "signer": lambda db: db.execute("UPDATE reference SET signer = x'00'"),
    "administrator": lambda db: db.execute(
        "INSERT INTO administrator VALUES (x'00', 'eve', 'administrator')"
    ),
    "role": lambda db: db.execute("UPDATE administrator SET role = 'administrator'"),
    "secret": lambda db: db.execute("UPDATE version SET sealed = x'00'"),
}


@pytest.mark.guarantee("G1")
@pytest.mark.parametrize("change", ROWS.values(), ids=ROWS)
def test_a_row_that_another_program_changed_closes_the_house(made: House, change: Tamper) -> None:
    put(made, uri=OTHER, policy=policy(vmpl=[1]))
    do(made, "revoke", uri=URI, epoch=5, reason="test")
    do(made, "import-references", file=references(), signer=SIGNER)
    do(made, "add-administrator", name="ann", key=SIGNER, role="auditor")
    with sqlite3.connect(made.directory / FILE) as connection:
        change(connection)
    with pytest.raises(VerifyError, match="changed by something else than the broker"):
        House(made.directory)
    with pytest.raises(VerifyError, match="changed by something else than the broker"):
        put(made, b"next")


SIGNER = "A6EHv_POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg"


@pytest.mark.guarantee("G1")
def test_a_secret_moved_to_another_name_does_not_open(made: House) -> None:
    put(made, b"other", uri=OTHER)
    with sqlite3.connect(made.directory / FILE) as connection:
        connection.execute(
            "UPDATE version SET sealed = (SELECT sealed FROM version WHERE uri = ?) WHERE uri = ?",
            (URI, OTHER),
        )
    with pytest.raises(VerifyError, match="changed by something else than the broker"):
        House(made.directory)


TABLES = ("meta", "resource", "version", "revocation", "reference", "administrator", "session", "audit")
Rows = dict[str, list[tuple[Any, ...]]]


def saved(at: House) -> Rows:
    with sqlite3.connect(at.directory / FILE) as db:
        return {table: db.execute(f"SELECT * FROM {table}").fetchall() for table in TABLES}


def put_back(at: House, rows: Rows, *tables: str, meta: tuple[str, ...] = ()) -> None:
    with sqlite3.connect(at.directory / FILE) as db:
        for name, value in rows["meta"]:
            if name in meta:
                db.execute("UPDATE meta SET value = ? WHERE name = ?", (value, name))
        for table in tables:
            db.execute(f"DELETE FROM {table}")
            for row in rows[table]:
                db.execute(f"INSERT INTO {table} VALUES ({','.join('?' * len(row))})", row)


@pytest.mark.guarantee("G1")
@pytest.mark.parametrize(
    ("tables", "meta", "why"),
    [
        (("revocation",), (), "broker rules: changed"),
        (("revocation",), ("checkpoint",), "audit: ends at 3"),
        (("revocation", "audit"), (), "broker rules: changed"),
    ],
)
def test_a_revocation_is_not_undone_by_older_rows(
    made: House, tables: tuple[str, ...], meta: tuple[str, ...], why: str
) -> None:
    before = saved(made)
    do(made, "revoke", uri=URI, epoch=5, reason="leaked")
    put_back(made, before, *tables, meta=meta)
    with pytest.raises(VerifyError), House(made.directory) as again:
        again.verify_audit()
    if meta:
        with House(made.directory) as again, pytest.raises(VerifyError, match=why):
            again.record([decision()])
    else:
        with pytest.raises(VerifyError, match=why):
            House(made.directory)


@pytest.mark.guarantee("G1")
def test_a_running_server_does_not_follow_an_older_state(made: House) -> None:
    before = saved(made)
    do(made, "revoke", uri=URI, epoch=5, reason="leaked")
    put_back(made, before, "revocation", "audit", meta=("checkpoint",))
    for asked in (made.rules, made.verify_audit, lambda: made.record([decision()]), lambda: put(made)):
        with pytest.raises(VerifyError, match="an older or another state was put back"):
            asked()


def test_an_audit_line_cut_off_under_a_running_server_is_seen(made: House) -> None:
    before = saved(made)
    made.record([decision()])
    put_back(made, before, "audit", meta=("checkpoint",))
    with pytest.raises(VerifyError, match="an older or another state was put back"):
        made.rules()


@pytest.mark.guarantee("G1")
def test_a_deleted_secret_does_not_come_back_under_its_name(made: House) -> None:
    before = saved(made)["version"][0]
    do(made, "delete", uri=URI)
    put(made, b"the new one")
    assert secret(made) == b"the new one"
    with sqlite3.connect(made.directory / FILE) as db:
        db.execute("UPDATE version SET sealed = ?", (before[-1],))
    with pytest.raises(VerifyError, match="is another than the one that was judged"):
        secret(made)
    with pytest.raises(VerifyError, match="broker rules: changed"):
        House(made.directory)


def test_a_session_put_back_does_not_go_on_again(made: House) -> None:
    made.keep_sessions([b"one"])
    before = saved(made)
    assert made.take_sessions() == [b"one"]
    put_back(made, before, "session")
    made.rotate_root(audit)  # is no obstacle
    put_back(made, before, "session")
    with House(made.directory) as again:
        assert again.take_sessions() == []


def test_a_new_root_key_takes_no_other_s_place(made: House, tmp_path: Path) -> None:
    other = tmp_path / "other.key"
    other.write_bytes(bytes(32))
    with pytest.raises(ConfigError, match="exists already, and may be another broker's"):
        made.rotate_root(audit, f"file:{other}")
    assert other.read_bytes() == bytes(32)
    stray = tmp_path / "free.key.next"
    stray.write_bytes(b"whose?")
    for refused in (
        lambda: made.rotate_root(audit, f"file:{tmp_path}/free.key"),
        lambda: house(tmp_path / "c", root=f"file:{tmp_path}/free.key"),
    ):
        with pytest.raises(ConfigError, match=r"free\.key\.next exists already"):
            refused()
    assert stray.read_bytes() == b"whose?"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "c", "free.key.next", "other.key"]
    made.rotate_root(audit, f"file:{tmp_path}/mine.key")
    assert secret(made) == SECRET


def test_a_new_root_key_that_does_not_come_back_is_not_taken(
    made: House, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(FileRoot, "load", lambda self: [Found(Secret(bytes(32)), staged=True)])
    monkeypatch.setattr(House, "_settle", lambda self, connection: None)
    with pytest.raises(MachineError, match="does not give the key that was put there"):
        made.rotate_root(audit, f"file:{tmp_path}/mine.key")
    monkeypatch.undo()
    assert not list(tmp_path.glob("mine*"))
    with House(made.directory) as again:
        assert secret(again) == SECRET


def test_another_root_key_opens_nothing(made: House) -> None:
    (made.directory / "root.key").write_bytes(bytes(32))
    with pytest.raises(VerifyError, match=r"the key of file:root\.key is not the one"):
        House(made.directory)
    (made.directory / "root.key").unlink()
    with pytest.raises(MachineError, match=r"root\.key: no such file"):
        House(made.directory)


def test_a_house_is_made_once(made: House) -> None:
    with pytest.raises(ConfigError, match="exists already"):
        house(made.directory)


def audit(what: str) -> Audit:
    return ACTOR.audit(what)


@pytest.mark.guarantee("G11")
def test_a_new_root_key_seals_everything_anew(made: House) -> None:
    put(made, b"next")
    made.keep_sessions([b"one", b"two"])
    old, token = (made.directory / "root.key").read_bytes(), made.token_key().private_numbers()
    before = {row[0] for row in made.database.rows("SELECT sealed FROM version")}
    with House(made.directory) as server:
        made.rotate_root(audit)
        assert (secret(server, 1), secret(server, 2)) == (SECRET, b"next")  # a running server follows
        assert server.record([decision()])
    new = (made.directory / "root.key").read_bytes()
    assert new != old and len(new) == 32
    assert before.isdisjoint(row[0] for row in made.database.rows("SELECT sealed FROM version"))
    with House(made.directory) as again:
        assert (secret(again, 1), secret(again, 2)) == (SECRET, b"next")
        assert again.take_sessions() == [b"one", b"two"]
        assert again.token_key().private_numbers() == token
        again.verify_audit()
    (made.directory / "root.key").write_bytes(old)
    with pytest.raises(VerifyError, match="is not the one it was sealed under"):
        House(made.directory)


def test_a_root_key_moves_to_a_credential(
    made: House, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "root").write_bytes(bytes(range(32)))
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    made.rotate_root(audit, "credential:root")
    with pytest.raises(ConfigError, match="holds the key in use, want a new one"):
        made.rotate_root(audit)
    (made.directory / "root.key").unlink()
    with House(made.directory) as again:
        assert secret(again) == SECRET


class Killed(BaseException):
    pass


@pytest.mark.parametrize("point", ["stage", "reseal", "commit", "settle"])
def test_a_rotation_that_is_killed_leaves_one_key_that_opens(
    made: House, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    real = House._settle

    def dies(*arguments: Any, **options: Any) -> Any:
        raise Killed

    def settles_once(self: House, connection: sqlite3.Connection) -> None:
        monkeypatch.setattr(House, "_settle", dies)
        real(self, connection)

    with monkeypatch.context() as patch:
        if point == "stage":
            patch.setattr(
                "strongroom.host.brokerage.root.sync_directory", dies
            )  # the staged file is half there
        elif point == "reseal":
            patch.setattr(module, "_reseal", dies)
        elif point == "commit":
            patch.setattr("strongroom.host.brokerage.ledger.append", dies)
        else:
            monkeypatch.setattr(House, "_settle", settles_once)
        with pytest.raises(Killed):
            made.rotate_root(audit)
    monkeypatch.setattr(House, "_settle", real)
    for _ in range(2):
        with House(made.directory) as again:
            assert secret(again) == SECRET
            again.rotate_root(audit)
            assert secret(again) == SECRET
    assert sorted(path.name for path in made.directory.iterdir() if "root" in path.name) == ["root.key"]


def test_a_staged_key_that_was_cut_short_is_no_obstacle(made: House) -> None:
    (made.directory / "root.key.next").touch(0o600)
    with House(made.directory) as again:
        assert secret(again) == SECRET
        again.rotate_root(audit)
    assert not (made.directory / "root.key.next").exists()


def test_sessions_are_taken_once(made: House) -> None:
    made.keep_sessions([b"one", b"two"])
    with House(made.directory) as again:
        assert again.take_sessions() == [b"one", b"two"]
        assert again.take_sessions() == []


def test_one_server_at_a_time(made: House) -> None:
    other = House(made.directory)
    with made.serving(), pytest.raises(MachineError, match="another broker serves it already"):
        other.serving().__enter__()
    other.database.close()
    with made.serving():
        pass


def test_a_change_that_fails_leaves_nothing(made: House) -> None:
    before, head = made.rules(), made.verify_audit()

    def fails() -> None:
        with made.change(audit) as change:
            change.connection.execute("DELETE FROM resource")
            change.say("deleted everything")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert made.rules() == before and made.verify_audit() == head

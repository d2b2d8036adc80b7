"""The broker's resources as files: a payload and the policy that guards it, in a folder named by the URI.

    <directory>/resources/<repository>/<type>/<tag>/payload       the bytes released, 0600
                                                   /policy.yaml   whom to, 0600; may be edited in place

Every name is checked by ResourceURI and every component opened without following links. Files are replaced whole, and
a payload is put back last and read first: a new secret is never seen beside an old policy.
"""

import contextlib
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Final

from strongroom.appraise.policy import Policy
from strongroom.broker.resource import ResourceURI
from strongroom.errors import ConfigError, FormatError, MachineError, StrongroomError
from strongroom.host.yamltext import parse_yaml

MAX_PAYLOAD: Final = 64 << 10  # bytes
MAX_POLICY: Final = 256 << 10
_FOLDER: Final = "resources"
_PAYLOAD: Final = "payload"
_POLICY: Final = "policy.yaml"
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    payload: bytes = field(repr=False)
    policy: Policy
    policy_sha256: bytes  # of the policy file's text


class Shelf:
    """The resources of one broker directory, read afresh at every question."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def create(self) -> None:
        """Make the empty folder, closed to other users."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.directory / _FOLDER).mkdir(mode=0o700, exist_ok=True)

    def put(self, uri: ResourceURI, payload: bytes, policy: bytes) -> None:
        """Keep a payload under a policy (YAML text), in place of what was there. ConfigError for a bad policy."""
        parse_policy(policy, f"policy of {uri}")
        if not 1 <= len(payload) <= MAX_PAYLOAD:
            raise FormatError(f"payload of {uri}: got {len(payload)} bytes, want 1..{MAX_PAYLOAD}")
        try:
            with ExitStack() as stack:
                folder = self._folder(uri, stack, create=True)
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(_PAYLOAD, dir_fd=folder)
                _replace(folder, _POLICY, policy)
                _replace(folder, _PAYLOAD, payload)
                os.fsync(folder)
        except OSError as error:
            raise MachineError(f"{uri}: {_why(error)}") from error

    def take(self, uri: ResourceURI) -> Resource | None:
        """The resource, or None when there is no such one. ConfigError when its policy cannot be read."""
        with ExitStack() as stack:
            try:
                folder = self._folder(uri, stack, create=False)
                payload = _read(folder, _PAYLOAD, MAX_PAYLOAD)
            except FileNotFoundError:
                return None
            except OSError as error:
                raise MachineError(f"{uri}: {_why(error)}") from error
            try:
                text = _read(folder, _POLICY, MAX_POLICY)
            except OSError as error:
                raise ConfigError(f"policy of {uri}: {_why(error)}") from error
        policy = parse_policy(text, f"policy of {uri}")
        return Resource(payload=payload, policy=policy, policy_sha256=sha256(text).digest())

    def uris(self) -> Iterator[ResourceURI]:
        """The names of all resources; what has no resource's name is passed over."""
        root = self.directory / _FOLDER
        for path in sorted(root.glob(f"*/*/*/{_PAYLOAD}")):
            with contextlib.suppress(FormatError):
                yield ResourceURI(*path.parent.relative_to(root).parts)

    def policies(self) -> Iterator[Policy]:
        """Every policy that can be read. One that cannot guards its own resource by being broken."""
        for uri in self.uris():
            with contextlib.suppress(StrongroomError):
                if resource := self.take(uri):
                    yield resource.policy

    def _folder(self, uri: ResourceURI, stack: ExitStack, *, create: bool) -> int:
        """A descriptor of the resource's folder, each step opened below the one before."""
        folder = _opened(stack, os.open(self.directory, _DIRECTORY & ~os.O_NOFOLLOW))
        for name in (_FOLDER, uri.repository, uri.type, uri.tag):
            if create:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, 0o700, dir_fd=folder)
            folder = _opened(stack, os.open(name, _DIRECTORY, dir_fd=folder))
        return folder


def parse_policy(text: bytes, subject: str) -> Policy:
    """The policy in YAML text. ConfigError also for a condition that evidence of this exchange cannot meet."""
    policy = Policy.from_raw(parse_yaml(text, subject, max_bytes=MAX_POLICY), subject)
    for name, unset in (
        ("model", policy.model is None),
        ("engine", policy.engine_versions is None),
        ("gpus", not policy.gpus),
    ):
        if not unset:
            raise ConfigError(
                f"{subject}.{name}: evidence for a key says nothing of it yet, want it left out"
            )
    return policy


def _opened(stack: ExitStack, descriptor: int) -> int:
    stack.callback(os.close, descriptor)
    return descriptor


def _read(folder: int, name: str, most: int) -> bytes:
    with os.fdopen(os.open(name, _FILE, dir_fd=folder), "rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise FormatError(f"{name}: longer than {most} bytes")
    return content


def _replace(folder: int, name: str, content: bytes) -> None:
    temporary = f".{name}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary, dir_fd=folder)
    with os.fdopen(os.open(temporary, _NEW, 0o600, dir_fd=folder), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)


def _why(error: OSError) -> str:
    return (error.strerror or "cannot be read").lower()

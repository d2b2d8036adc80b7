"""The keys of one application behind dstack's local interface, and the file they travel in.

    seed -> app CA key (P-256), disk key, app root key (secp256k1)
    app root key -> one 32-byte secret for each path (v0), or for each domain and algorithm (v1)

Where a service issued the root key, link 1 of every chain says so (chain.py). In v0 only the path chooses the
secret: neither purpose nor algorithm does. v1 separates them.

Source: dstack's guest API, v0 as of 0.5.11 and v1.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Self

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from strongroom.errors import FormatError
from strongroom.keys import chain, signing
from strongroom.keys.chain import Chain
from strongroom.keys.derivation import SIZE, Octets, derive, derive_v1, flattened, octets, p256
from strongroom.keys.recoverable import SIZE as RECOVERABLE
from strongroom.keys.recoverable import Secp256k1PrivateKey
from strongroom.keys.signing import Algorithm, SignatureKey
from strongroom.wire.canonical import JSON, parse_json

SIGNING_PATH: Final = "vms"  # the path of the one key that `sign` uses
SIGNING_PURPOSE: Final = "signing"
MAX_APPKEYS: Final = 64 * 1024  # bytes
_MAX_KEPT: Final = 1024  # public keys and chains: about 2 ms to make, half a KiB to keep
_MAX_NAME: Final = 256  # characters of what is kept: callers choose the names
_PROVIDERS: Final = {
    "None": frozenset({"key"}),
    "Local": frozenset({"key", "mr"}),
    "Tpm": frozenset({"key", "pubkey"}),
    "Kms": frozenset({"url", "pubkey", "tmp_ca_key", "tmp_ca_cert"}),
}
_MEMBERS: Final = frozenset(
    {
        "disk_crypt_key", "env_crypt_key", "k256_key", "k256_signature", "gateway_app_id", "ca_cert",
        "key_provider",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """Where the keys came from. Some members are private keys."""

    kind: str  # None, Local, Tpm or Kms
    members: dict[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A derived key with the chain that says whose it is."""

    key: bytes = field(repr=False)
    public_key: bytes  # 33 bytes, or 32 for ed25519
    chain: Chain


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    signature: bytes  # 64 bytes
    public_key: bytes
    chain: Chain  # for the public key


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AppKeys:
    """Everything one application's keys are derived from."""

    app_root: bytes = field(repr=False)  # secp256k1 scalar
    disk_key: bytes = field(repr=False)
    env_key: bytes = field(
        default=b"", repr=False
    )  # X25519 private key; empty where no service holds the other end
    app_root_signature: bytes = b""  # link 1
    ca_key: ec.EllipticCurvePrivateKey | None = field(default=None, repr=False)  # None: a service signs
    ca_certificate: str = ""  # PEM
    gateway_app_id: str = ""
    provider: Provider | None = None
    _root: Secp256k1PrivateKey = field(init=False, repr=False)
    _kept: dict[tuple[str, ...], tuple[bytes, bytes]] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        for name, found, sizes in (
            ("disk key", self.disk_key, {SIZE}),
            ("env key", self.env_key, {0, SIZE}),
            ("app root signature", self.app_root_signature, {0, RECOVERABLE}),
        ):
            if len(found) not in sizes:
                raise FormatError(f"app keys: {name} is {len(found)} bytes, want {max(sizes)}")
        object.__setattr__(self, "_root", Secp256k1PrivateKey(self.app_root))

    @classmethod
    def from_seed(cls, seed: Octets) -> Self:
        """The keys of an application whose machine has 32 secret bytes, and no service to ask."""
        return cls(
            app_root=derive(seed, b"app-k256-key"),
            disk_key=flattened(p256(derive(seed, b"app-disk-key"))),
            ca_key=p256(derive(seed, b"app-key")),
        )

    @classmethod
    def from_appkeys_json(cls, data: bytes) -> Self:
        """The keys in an .appkeys.json. Raises FormatError that quotes nothing of it."""
        value = _members(parse_json(data, "app keys", max_bytes=MAX_APPKEYS), _MEMBERS, "app keys")
        provider = _provider(value["key_provider"])
        key = provider.members.get("key")
        return cls(
            app_root=_hex(value, "k256_key"),
            disk_key=_hex(value, "disk_crypt_key"),
            env_key=_hex(value, "env_crypt_key"),
            app_root_signature=_hex(value, "k256_signature"),
            ca_key=None if key is None else _load_pem(key),
            ca_certificate=_text(value, "ca_cert"),
            gateway_app_id=_text(value, "gateway_app_id"),
            provider=provider,
        )

    def to_appkeys_json(self) -> bytes:
        """The same file again. Whoever reads it has every key: mode 0600, or nowhere at all."""
        provider = self.provider or Provider(kind="None", members={"key": _pem(self.ca_key)})
        value = {
            "disk_crypt_key": self.disk_key.hex(),
            "env_crypt_key": self.env_key.hex(),
            "k256_key": self.app_root.hex(),
            "k256_signature": self.app_root_signature.hex(),
            "gateway_app_id": self.gateway_app_id,
            "ca_cert": self.ca_certificate,
            "key_provider": {provider.kind: provider.members},
        }
        return json.dumps(value).encode()

    @property
    def app_root_public(self) -> bytes:
        """Compressed, 33 bytes."""
        return self._root.public

    def key(self, path: str) -> bytes:
        """The 32 secret bytes of v0."""
        return derive(self.app_root, octets(path))

    def key_v1(self, domain: str, algorithm: str) -> bytes:
        """The 32 secret bytes of v1. The algorithm is secp256k1 or ed25519: v1 has no other name for either."""
        return derive_v1(self.app_root, _exactly(algorithm), domain)

    def claim_v0(self, path: str, purpose: str, algorithm: str) -> Claim:
        """The key of a path, its public key and the chain; the latter two are kept."""
        kind, secret = Algorithm.of_key(algorithm), self.key(path)
        public, link = self._vouched(
            ("v0", path, purpose, kind), secret, lambda key: chain.key_digest_v0(purpose, key)
        )
        return Claim(key=secret, public_key=public, chain=(link, self.app_root_signature))

    def chain_v0(self, path: str, purpose: str, algorithm: str) -> Chain:
        """Two links of 65 bytes; the second is empty where no service issued the app root key."""
        return self.claim_v0(path, purpose, algorithm).chain

    def claim_v1(self, domain: str, algorithm: str) -> Claim:
        """The key of a domain, its public key and the chain; the latter two are kept."""
        kind, secret = Algorithm(_exactly(algorithm)), self.key_v1(domain, algorithm)
        public, link = self._vouched(
            ("v1", domain, "", kind), secret, lambda key: chain.key_digest_v1(kind, domain, key)
        )
        return Claim(key=secret, public_key=public, chain=(link, self.app_root_signature))

    def tappd_key(self, path: str, *, seed: Octets | None = None) -> ec.EllipticCurvePrivateKey:
        """The P-256 key of a path; from `seed`, 32 random bytes, where the caller wants a new one each time."""
        return p256(derive(self.app_root if seed is None else seed, octets(path)))

    def sign(self, algorithm: str, data: bytes) -> Signed:
        """A signature by the one key that callers may sign with and need not be given."""
        way = Algorithm.of_signature(algorithm)
        claim = self.claim_v0(SIGNING_PATH, SIGNING_PURPOSE, way.key)
        key: SignatureKey = signing.load(claim.key, way)
        return Signed(signature=signing.sign(key, way, data), public_key=claim.public_key, chain=claim.chain)

    @staticmethod
    def verify(algorithm: str, data: bytes, signature: bytes, public_key: bytes) -> None:
        """Raise VerifyError unless the signature is that key's, FormatError for what can be neither."""
        signing.verify(Algorithm.of_signature(algorithm), data, signature, public_key)

    def _vouched(
        self, name: tuple[str, str, str, Algorithm], secret: bytes, digest: Callable[[bytes], bytes]
    ) -> tuple[bytes, bytes]:
        """The public key of `secret`, and link 0 for it."""
        if (kept := self._kept.get(name)) is not None:
            return kept
        public = signing.public_bytes(signing.load(secret, name[3]))
        made = public, self._root.sign(digest(public))
        if len(name[1]) + len(name[2]) <= _MAX_NAME:
            while len(self._kept) >= _MAX_KEPT:
                self._kept.pop(next(iter(self._kept)), None)  # the oldest
            self._kept[name] = made
        return made


def _exactly(algorithm: str) -> str:
    if algorithm not in {Algorithm.SECP256K1, Algorithm.ED25519}:
        raise FormatError(f"unsupported algorithm: got {algorithm[:40]!a}, want ed25519 or secp256k1")
    return algorithm


def _provider(value: JSON) -> Provider:
    if not isinstance(value, dict) or len(value) != 1:
        raise FormatError(f"app keys.key_provider: want one of {', '.join(_PROVIDERS)}")
    ((kind, inner),) = value.items()
    if (wanted := _PROVIDERS.get(kind)) is None:
        raise FormatError(f"app keys.key_provider: got {kind[:40]!a}, want one of {', '.join(_PROVIDERS)}")
    members = _members(inner, wanted, f"app keys.key_provider.{kind}")
    return Provider(kind=kind, members={name: _text(members, name) for name in members})


def _members(value: JSON, wanted: frozenset[str], at: str) -> dict[str, JSON]:
    if not isinstance(value, dict) or value.keys() != wanted:
        raise FormatError(f"{at}: want an object of exactly {', '.join(sorted(wanted))}")
    return value


def _text(value: dict[str, JSON], name: str) -> str:
    if not isinstance(text := value[name], str):
        raise FormatError(f"app keys.{name}: not text")
    return text


def _hex(value: dict[str, JSON], name: str) -> bytes:
    try:
        return bytes.fromhex(_text(value, name))
    except ValueError:
        raise FormatError(f"app keys.{name}: not hex") from None


def _load_pem(text: str) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(text.encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # what the library says may quote the key
        raise FormatError("app keys.key: not a private key in pem") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise FormatError("app keys.key: not on p-256")
    return key


def _pem(key: ec.EllipticCurvePrivateKey | None) -> str:
    if key is None:
        raise FormatError("app keys: no ca key and no provider, want one of them")
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()

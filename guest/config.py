"""Userdata bytes -> a frozen Config. Nothing past this module sees raw YAML.

The only accepted form is a `#cloud-config` document with one top-level key, `strongroom`:

    #cloud-config
    strongroom:
      version: 1
      broker: {url: "https://broker.example:8443", ca: "<PEM>" or spki_sha256: "<hex>", deadline_s: 60}
      model: {name: llama, source: /srv/model, key: "kbs:///default/model/llama"}
      engine: {max_model_len: 4096, max_num_seqs: 16, kv_cache_gib: 4, dtype: auto, start_deadline_s: 600}
      door: {port: 8443, names: [llm.example], tenants: [{name: a, token_sha256: "<hex>"}], cache: tenant}
      gpus: 0

A model that is pushed into the guest has no source, and needs no broker unless its key comes from there:

      model: {name: llama, push: {provider_keys: ["<base64url of a DER SPKI>"], port: 8444, key: ephemeral,
              max_gib: 512, wait_s: 86400}}

Every error is a ConfigError that names the key path.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from guest import bounds
from guest.userdata import MAX_BYTES, Userdata
from strongroom.errors import ConfigError
from strongroom.host.yamltext import parse_yaml

FIRST_LINE: Final = "#cloud-config"
PRODUCT_KEY: Final = "strongroom"
_GZIP: Final = b"\x1f\x8b"
_KNOWN_FORMATS: Final = (
    "#!",
    "#include",
    "#cloud-boothook",
    "#part-handler",
    "## template:",
    "Content-Type:",
    "MIME-Version:",
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    url: str
    ca_pem: str | None
    spki_sha256: str | None  # exactly one of the two is set
    deadline_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    """Who may push the model, and how."""

    provider_keys: tuple[str, ...]  # base64url of DER SPKIs (Ed25519)
    port: int
    max_gib: int  # of all files together
    wait_s: int  # until the model must have been accepted


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    name: str
    source: str  # directory of the sealed tree; its contents are untrusted
    key: str | None  # kbs:/// URI; None for a key that is made in the guest and ends with it
    push: Push | None = None  # None for a model that lies at its source, sealed


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    max_model_len: int  # tokens
    max_num_seqs: int
    kv_cache_gib: int
    dtype: str
    start_deadline_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    name: str
    token_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    port: int
    names: tuple[str, ...]
    tenants: tuple[Tenant, ...]
    cache: str  # "tenant": one prefix cache a tenant; "request": none is shared


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    userdata_sha256: bytes
    broker: Broker | None  # None when no key is asked for
    model: Model
    engine: Engine
    door: Door
    gpus: int


def parse(userdata: Userdata) -> Config:
    """The Config that `userdata` asks for, or ConfigError with the path of the first broken key."""
    text = _text(userdata.raw)
    top = _Section(parse_yaml(text, "userdata", max_bytes=MAX_BYTES), "userdata")
    root = top.section(PRODUCT_KEY)
    top.end()
    root.value("version", bounds.VERSION.check)
    model = _model(root.section("model"))
    config = Config(
        userdata_sha256=userdata.sha256,
        broker=_broker_for(model, root),
        model=model,
        engine=_engine(root.section("engine", required=False)),
        door=_door(root.section("door")),
        gpus=root.value("gpus", bounds.GPUS.check),
    )
    root.end()
    if model.push is not None and not config.door.names:
        raise ConfigError(f"{PRODUCT_KEY}.door.names: empty, want at least one: a provider connects to it")
    return config


def _text(raw: bytes) -> str:
    if len(raw) > MAX_BYTES:
        raise ConfigError(f"userdata: {len(raw)} bytes, want at most {MAX_BYTES}")
    if raw.startswith(_GZIP):
        raise ConfigError(f"userdata: gzip is never unpacked here, want {FIRST_LINE}")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"userdata: byte {error.start} is not UTF-8, want UTF-8 text") from None
    if not text.strip():
        raise ConfigError(f"userdata: empty, want a document whose first line is {FIRST_LINE}")
    first = text.split("\n", 1)[0].rstrip()
    if first == FIRST_LINE:
        return text
    if any(first.startswith(known) for known in _KNOWN_FORMATS):
        raise ConfigError(f"userdata: format {bounds.shown(first)} is never run here, want {FIRST_LINE}")
    raise ConfigError(f"userdata: first line is {bounds.shown(first)}, want {FIRST_LINE}")


class _Section:
    """One mapping of the document; keys nobody asked for are errors at end()."""

    def __init__(self, raw: Mapping[str, Any], at: str) -> None:
        self._raw, self._at, self._asked = raw, at, set[str]()

    def value(self, key: str, check: Callable[[object, str], T], *, default: T | None = None) -> T:
        self._asked.add(key)
        if key not in self._raw:
            if default is None:
                raise ConfigError(f"{self.path(key)}: missing")
            return default
        return check(self._raw[key], self.path(key))

    def has(self, key: str) -> bool:
        return key in self._raw

    def section(self, key: str, *, required: bool = True) -> "_Section":
        self._asked.add(key)
        raw = self._raw.get(key, None if required else {})
        if raw is None and key not in self._raw:
            raise ConfigError(f"{self.path(key)}: missing")
        return _Section(_mapping(raw, self.path(key)), self.path(key))

    def path(self, key: str) -> str:
        return key if self._at == "userdata" else f"{self._at}.{key}"

    def end(self) -> None:
        if unknown := sorted(self._raw.keys() - self._asked):
            raise ConfigError(
                f"{bounds.shown(self.path(unknown[0]))[1:-1]}: unknown key, want one of "
                f"{', '.join(sorted(self._asked))}"
            )


def _mapping(raw: object, at: str) -> Mapping[str, Any]:
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{at}: got {bounds.shown(raw)}, want a mapping")
    return raw


def _list(limit: int) -> Callable[[object, str], list[object]]:
    def check(value: object, at: str) -> list[object]:
        if not isinstance(value, list) or len(value) > limit:
            raise ConfigError(f"{at}: got {bounds.shown(value)}, want a list of at most {limit}")
        return value

    return check


def _broker_for(model: Model, root: _Section) -> Broker | None:
    if model.key is not None:
        return _broker(root.section("broker"))
    if root.has("broker"):
        raise ConfigError(
            f"{root.path('broker')}: got one, want none: with an ephemeral key no broker is asked"
        )
    return None


def _broker(raw: _Section) -> Broker:
    url = raw.value("url", bounds.BROKER_URL.check)
    ca = raw.value("ca", bounds.CERTIFICATE.check) if raw.has("ca") else None
    spki = raw.value("spki_sha256", bounds.SHA256.check) if raw.has("spki_sha256") else None
    if (ca is None) == (spki is None):
        raise ConfigError(
            f"{raw.path('ca')}: got {'both' if ca else 'neither'}, want exactly one of ca and spki_sha256"
        )
    deadline = raw.value("deadline_s", bounds.BROKER_DEADLINE.check, default=60)
    raw.end()
    return Broker(url=url, ca_pem=ca, spki_sha256=spki, deadline_s=deadline)


def _model(raw: _Section) -> Model:
    if raw.has("push"):
        return _pushed(raw)
    model = Model(
        name=raw.value("name", bounds.NAME.check),
        source=raw.value("source", bounds.SOURCE.check),
        key=raw.value("key", bounds.RESOURCE.check),
    )
    raw.end()
    return model


def _pushed(raw: _Section) -> Model:
    name = raw.value("name", bounds.NAME.check)
    section = raw.section("push")
    raw.end()
    nothing: list[object] = []
    at = section.path("provider_keys")
    keys = section.value("provider_keys", _list(bounds.PROVIDERS_MAX), default=nothing)
    if not keys:
        raise ConfigError(f"{at}: empty, want at least one key: nobody else can push the model")
    push = Push(
        provider_keys=tuple(bounds.PROVIDER_KEY.check(key, f"{at}[{i}]") for i, key in enumerate(keys)),
        port=section.value("port", bounds.PORT.check, default=8444),
        max_gib=section.value("max_gib", bounds.PUSH_SIZE.check, default=512),
        wait_s=section.value("wait_s", bounds.PUSH_WAIT.check, default=86400),
    )
    key = section.value("key", bounds.PUSH_KEY.check, default=bounds.EPHEMERAL)
    section.end()
    _distinct(push.provider_keys, at)
    resource = None if key == bounds.EPHEMERAL else key
    return Model(name=name, source=bounds.PUSHED, key=resource, push=push)


def _engine(raw: _Section) -> Engine:
    engine = Engine(
        max_model_len=raw.value("max_model_len", bounds.CONTEXT_LENGTH.check, default=4096),
        max_num_seqs=raw.value("max_num_seqs", bounds.SEQUENCES.check, default=16),
        kv_cache_gib=raw.value("kv_cache_gib", bounds.KV_CACHE.check, default=4),
        dtype=raw.value("dtype", bounds.DTYPE.check, default="auto"),
        start_deadline_s=raw.value("start_deadline_s", bounds.START_DEADLINE.check, default=600),
    )
    raw.end()
    return engine


def _door(raw: _Section) -> Door:
    at = raw.path("names")
    nothing: list[object] = []
    names = raw.value("names", _list(bounds.NAMES_MAX), default=nothing)
    tenants = raw.value("tenants", _list(bounds.TENANTS_MAX), default=nothing)
    door = Door(
        port=raw.value("port", bounds.PORT.check, default=8443),
        names=tuple(bounds.HOST.check(name, f"{at}[{i}]") for i, name in enumerate(names)),
        tenants=tuple(_tenant(t, f"{raw.path('tenants')}[{i}]") for i, t in enumerate(tenants)),
        cache=raw.value("cache", bounds.CACHE_SCOPE.check, default="tenant"),
    )
    raw.end()
    _distinct((t.name for t in door.tenants), f"{raw.path('tenants')}: name")
    _distinct((t.token_sha256 for t in door.tenants), f"{raw.path('tenants')}: token_sha256")
    return door


def _tenant(raw: object, at: str) -> Tenant:
    section = _Section(_mapping(raw, at), at)
    tenant = Tenant(
        name=section.value("name", bounds.NAME.check),
        token_sha256=section.value("token_sha256", bounds.SHA256.check),
    )
    section.end()
    return tenant


def _distinct(values: Iterable[str], at: str) -> None:
    seen: set[str] = set()
    for value in values:
        if value in seen:
            raise ConfigError(f"{at} {value} appears twice, want each once")
        seen.add(value)

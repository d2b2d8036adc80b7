"""Userdata bytes -> a frozen Config. Nothing past this module sees raw YAML.

The only accepted form is a `#cloud-config` document with one top-level key, `strongroom`:

    #cloud-config
    strongroom:
      version: 1
      broker: {url: "https://broker.example:8443", ca: "<PEM>" or spki_sha256: "<hex>", deadline_s: 60}
      model: {name: llama, source: /srv/model, key: "kbs:///default/model/llama"}
      engine: {max_model_len: 4096, max_num_seqs: 16, kv_cache_gib: 4, dtype: auto, start_deadline_s: 600}
      door: {port: 8443, names: [llm.example], tenants: [{name: a, token_sha256: "<hex>"}], cache: tenant}
      keys: {root: broker, resource: "kbs:///default/keys/root", epoch: 1, rules: [{unit: api.service, paths: [db/]}]}
      volumes: [{name: state, source: /srv/state.enc, key: "kbs:///default/volumes/state"}]
      coco: {port: 8006, rules: [{uid: 1000, resources: [default/app/]}], signers: [{kid: a, x: "..", y: ".."}]}
      gpus: 0

A model that is pushed into the guest has no source, and needs no broker unless a key comes from there:

      model: {name: llama, push: {provider_keys: ["<base64url of a DER SPKI>"], port: 8444, key: ephemeral,
              max_gib: 512, wait_s: 86400}}

Every error is a ConfigError that names the key path. A broker that measured init-data names needs no url and no ca.
"""

from dataclasses import dataclass, field
from typing import Final

from guest import bounds
from guest.coco.userdata import Coco, parse_coco
from guest.door import Door, parse_door
from guest.initdata import broker_address
from guest.keysock.rights import DEFAULT, Method, Rights, Rule
from guest.section import Section, by_caller, distinct, list_of
from guest.userdata import MAX_BYTES, Userdata
from guest.volumes import StateVolume, check_apart, parse_volumes
from strongroom.errors import ConfigError
from strongroom.evidence.initdata import InitData
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    url: str
    ca_pem: str | None
    spki_sha256: str | None  # exactly one of the two is set
    deadline_s: int
    protocol: str = "0.4.0"
    hash: str = "sha384"  # of what the evidence carries
    init_data: InitData | None = None  # what this guest was launched with, for the broker to read


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
class LocalKeys:
    """What the programs of this machine may have from its key socket."""

    root: str  # broker, vtpm or ephemeral: where all of it is derived from
    resource: str | None  # kbs:/// URI, with broker alone
    epoch: int  # the newest a key can have
    app_id: str | None  # 20 bytes, hex
    strict: bool
    rights: Rights


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    userdata_sha256: bytes
    userdata: str = field(repr=False)
    init_data: InitData | None  # what this guest was launched with, where its launcher committed to some
    broker: Broker | None  # None when no key is asked for
    model: Model
    engine: Engine
    door: Door
    keys: LocalKeys | None  # None: the key socket has none to give
    gpus: int
    coco: Coco | None = None  # None: there is no such socket
    volumes: tuple[StateVolume, ...] = ()  # encrypted, for programs to write to

    @property
    def own_keys(self) -> tuple[str, ...]:
        """The resources that are for this machine itself, and for no program of it."""
        root = self.keys.resource if self.keys is not None else None
        return tuple(
            uri for uri in (self.model.key, root, *(volume.key for volume in self.volumes)) if uri is not None
        )


def parse(userdata: Userdata, init_data: InitData | None = None) -> Config:
    """The Config that `userdata` asks for, or ConfigError with the path of the first broken key."""
    text = _text(userdata.raw)
    top = Section(parse_yaml(text, "userdata", max_bytes=MAX_BYTES), "userdata")
    root = top.section(PRODUCT_KEY)
    top.end()
    root.value("version", bounds.VERSION.check)
    model = _model(root.section("model"))
    volumes = _volumes(root, model)
    config = Config(
        userdata_sha256=userdata.sha256,
        userdata=text,
        init_data=init_data,
        broker=_broker_for(model, volumes, root, init_data),
        model=model,
        engine=_engine(root.section("engine", required=False)),
        door=parse_door(root.section("door")),
        keys=_keys(root.section("keys")) if root.has("keys") else None,
        coco=parse_coco(root.section("coco")) if root.has("coco") else None,
        gpus=root.value("gpus", bounds.GPUS.check),
        volumes=volumes,
    )
    root.end()
    _check_own_keys(config)
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


def _broker_for(
    model: Model, volumes: tuple[StateVolume, ...], root: Section, init_data: InitData | None
) -> Broker | None:
    asked = model.key is not None or volumes or root.has("coco") or _root_is_the_brokers(root)
    if asked:
        return _broker(root.section("broker", required=init_data is None), init_data)
    if root.has("broker"):
        raise ConfigError(f"{root.path('broker')}: got one, want none: no key is asked for")
    return None


def _root_is_the_brokers(root: Section) -> bool:
    return root.has("keys") and root.section("keys").has("resource")


def _broker(raw: Section, init_data: InitData | None) -> Broker:
    named = None if init_data is None else broker_address(init_data)
    if named is not None:
        for key in ("url", "ca", "spki_sha256"):
            if raw.has(key):
                raise ConfigError(
                    f"{raw.path(key)}: got one, and the init-data names a broker, want it in one of them"
                )
    ca = raw.value("ca", bounds.CERTIFICATE.check) if raw.has("ca") else None
    url, ca = named or (raw.value("url", bounds.BROKER_URL.check), ca)
    spki = raw.value("spki_sha256", bounds.SHA256.check) if raw.has("spki_sha256") else None
    if (ca is None) == (spki is None):
        raise ConfigError(
            f"{raw.path('ca')}: got {'both' if ca else 'neither'}, want exactly one of ca and spki_sha256"
        )
    broker = Broker(
        url=url,
        ca_pem=ca,
        spki_sha256=spki,
        deadline_s=raw.value("deadline_s", bounds.BROKER_DEADLINE.check, default=60),
        protocol=raw.value("protocol", bounds.BROKER_PROTOCOL.check, default="0.4.0"),
        hash=raw.value("hash", bounds.BROKER_HASH.check, default="sha384"),
        init_data=init_data,
    )
    raw.end()
    return broker


def _model(raw: Section) -> Model:
    if raw.has("push"):
        return _pushed(raw)
    model = Model(
        name=raw.value("name", bounds.NAME.check),
        source=raw.value("source", bounds.SOURCE.check),
        key=raw.value("key", bounds.RESOURCE.check),
    )
    raw.end()
    return model


def _pushed(raw: Section) -> Model:
    name = raw.value("name", bounds.NAME.check)
    section = raw.section("push")
    raw.end()
    nothing: list[object] = []
    at = section.path("provider_keys")
    keys = section.value("provider_keys", list_of(bounds.PROVIDERS_MAX), default=nothing)
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
    distinct(push.provider_keys, at)
    resource = None if key == bounds.EPHEMERAL else key
    return Model(name=name, source=bounds.PUSHED, key=resource, push=push)


def _volumes(root: Section, model: Model) -> tuple[StateVolume, ...]:
    nothing: list[object] = []
    at = root.path("volumes")
    volumes = parse_volumes(root.value("volumes", list_of(bounds.VOLUMES_MAX), default=nothing), at)
    for n, volume in enumerate(volumes):
        check_apart([(f"{root.path('model')}.source", model.source), (f"{at}[{n}].source", volume.source)])
    return volumes


def _check_own_keys(config: Config) -> None:
    """One key, one purpose."""
    distinct(config.own_keys, f"{PRODUCT_KEY}: key")


def _engine(raw: Section) -> Engine:
    engine = Engine(
        max_model_len=raw.value("max_model_len", bounds.CONTEXT_LENGTH.check, default=4096),
        max_num_seqs=raw.value("max_num_seqs", bounds.SEQUENCES.check, default=16),
        kv_cache_gib=raw.value("kv_cache_gib", bounds.KV_CACHE.check, default=4),
        dtype=raw.value("dtype", bounds.DTYPE.check, default="auto"),
        start_deadline_s=raw.value("start_deadline_s", bounds.START_DEADLINE.check, default=600),
    )
    raw.end()
    return engine


def _keys(raw: Section) -> LocalKeys:
    root = raw.value("root", bounds.KEYS_ROOT.check)
    resource = raw.value("resource", bounds.RESOURCE.check) if raw.has("resource") else None
    if (root == "broker") != (resource is not None):
        raise ConfigError(
            f"{raw.path('resource')}: {'got one' if resource else 'missing'}, want it with root: broker alone"
        )
    nothing: list[object] = []
    rules = raw.value("rules", list_of(bounds.RULES_MAX), default=nothing)
    keys = LocalKeys(
        root=root,
        resource=resource,
        epoch=raw.value("epoch", bounds.KEY_EPOCH.check, default=1),
        app_id=raw.value("app_id", bounds.APP_ID.check) if raw.has("app_id") else None,
        strict=raw.value("strict", bounds.FLAG.check, default=True),
        rights=_rights(rules, raw.path("rules"), others=raw.value("others", bounds.FLAG.check, default=True)),
    )
    raw.end()
    return keys


def _rights(rules: list[object], at: str, *, others: bool) -> Rights:
    units, uids = by_caller(rules, at, _rule)
    return Rights(units=units, uids=uids, others=others)


def _rule(raw: Section) -> Rule:
    nothing: list[object] = []
    method = bounds.OneOf(tuple(Method)).check
    methods: list[object] = raw.value("methods", list_of(len(Method)), default=[*DEFAULT])
    paths, sign = (raw.value(key, list_of(bounds.PATHS_MAX), default=nothing) for key in ("paths", "sign"))
    rule = Rule(
        methods=frozenset(
            Method(method(name, f"{raw.path('methods')}[{n}]")) for n, name in enumerate(methods)
        ),
        paths=tuple(bounds.KEY_PATH.check(p, f"{raw.path('paths')}[{n}]") for n, p in enumerate(paths)),
        sign=tuple(bounds.KEY_PATH.check(p, f"{raw.path('sign')}[{n}]") for n, p in enumerate(sign)),
        raw_quote=raw.value("raw_quote", bounds.FLAG.check, default=False),
    )
    raw.end()
    return rule

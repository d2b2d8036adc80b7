"""What userdata may change at all, and how far. Everything else is decided by the measured image.

A setting that is not in these tables does not exist for userdata: no engine flag, path, environment variable, file or
command can be added from outside.
"""

import re
from dataclasses import dataclass
from typing import Final

from strongroom.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number between two ends, both allowed."""

    low: int
    high: int
    unit: str = ""

    def check(self, value: object, at: str) -> int:
        if type(value) is not int or not self.low <= value <= self.high:  # bool is an int: type() on purpose
            unit = f" {self.unit}" if self.unit else ""
            raise ConfigError(f"{at}: got {shown(value)}, want a whole number {self.low}..{self.high}{unit}")
        return value


@dataclass(frozen=True, slots=True)
class Text:
    """Text that matches a pattern from end to end."""

    pattern: re.Pattern[str]
    means: str

    def check(self, value: object, at: str) -> str:
        if not isinstance(value, str) or not self.pattern.fullmatch(value):
            raise ConfigError(f"{at}: got {shown(value)}, want {self.means}")
        return value


@dataclass(frozen=True, slots=True)
class Line:
    """Printable text for people, on one line."""

    most: int  # characters

    def check(self, value: object, at: str) -> str:
        if not isinstance(value, str) or not value.isprintable() or not 0 < len(value.strip()) <= self.most:
            raise ConfigError(f"{at}: got {shown(value)}, want 1..{self.most} printable characters")
        return value.strip()


@dataclass(frozen=True, slots=True)
class OneOf:
    """One word of a closed list."""

    words: tuple[str, ...]

    def check(self, value: object, at: str) -> str:
        if not isinstance(value, str) or value not in self.words:
            raise ConfigError(f"{at}: got {shown(value)}, want one of {', '.join(self.words)}")
        return value


@dataclass(frozen=True, slots=True)
class Flag:
    """Yes or no."""

    def check(self, value: object, at: str) -> bool:
        if not isinstance(value, bool):
            raise ConfigError(f"{at}: got {shown(value)}, want true or false")
        return value


def shown(value: object) -> str:
    """A value for an error line: short, on one line, never more than a person needs to find it."""
    text = repr(value) if isinstance(value, str | int | float | bool | type(None)) else type(value).__name__
    return text if len(text) <= 80 else f"{text[:77]}..."


NAME: Final = Text(
    re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"), "1..64 letters, digits, dots, dashes or underscores"
)
HOST: Final = Text(
    re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*"),
    "a lowercase DNS name or an IPv4 address",
)
_LABEL: Final = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"  # of a DNS name
SHA256: Final = Text(re.compile(r"[0-9a-f]{64}"), "64 lowercase hex digits (a SHA-256)")
BROKER_URL: Final = Text(
    re.compile(rf"https://(?!.{{260}}){_LABEL}(\.{_LABEL})*(:[0-9]{{1,5}})?"),
    "https://HOST or https://HOST:PORT, no path",
)
RESOURCE: Final = Text(
    re.compile(r"kbs://(/[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}){3}"),
    "kbs:///REPOSITORY/TYPE/TAG, each part at most 128 characters",
)
# Model ciphertext is untrusted wherever it lies; the prefix keeps userdata from naming anything else.
SOURCE: Final = Text(
    re.compile(r"/srv(/[A-Za-z0-9][A-Za-z0-9._-]*)+"), "a path below /srv, without dot segments"
)
# Where a model that is pushed is sealed to: the one place that its door may write to.
PUSHED: Final = "/srv/pushed/model"
EPHEMERAL: Final = "ephemeral"
PUSH_KEY: Final = Text(
    re.compile(rf"{EPHEMERAL}|{RESOURCE.pattern.pattern}"), f"{EPHEMERAL}, or {RESOURCE.means}"
)
# What stands before the 32 bytes of an Ed25519 key (RFC 8410) is 12 bytes, and so 16 characters.
PROVIDER_KEY: Final = Text(
    re.compile(r"MCowBQYDK2VwAyEA[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]"),
    "an Ed25519 public key, as `strongroom push keygen` prints it",
)
CERTIFICATE: Final = Text(
    re.compile(r"-----BEGIN CERTIFICATE-----\n[A-Za-z0-9+/=\n]{1,16384}-----END CERTIFICATE-----\n?"),
    "one PEM certificate",
)

VERSION: Final = Whole(1, 1)
BROKER_PROTOCOL: Final = OneOf(("0.4.0", "0.3.0", "0.2.0"))
# No sha256: a program chooses 32 bytes of report data, and whoever grinds such a digest makes it shorter still.
BROKER_HASH: Final = OneOf(("sha384", "sha512"))
BROKER_DEADLINE: Final = Whole(1, 600, "seconds")
START_DEADLINE: Final = Whole(10, 7200, "seconds")
PORT: Final = Whole(1024, 65535)
GPUS: Final = Whole(0, 16)
TENANTS_MAX: Final = 256
PROVIDERS_MAX: Final = 16
PUSH_SIZE: Final = Whole(1, 16384, "GiB")
PUSH_WAIT: Final = Whole(60, 7 * 86400, "seconds")
NAMES_MAX: Final = 16
# A part of a unit's name and of a path: a dot would be a way out of either, and an underscore reads as a blank.
VOLUME_NAME: Final = Text(
    re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?"),
    "1..32 lowercase letters, digits or dashes, no dash at either end",
)
VOLUMES_MAX: Final = 16

CONTEXT_LENGTH: Final = Whole(64, 1 << 20, "tokens")
SEQUENCES: Final = Whole(1, 1024)
KV_CACHE: Final = Whole(1, 1024, "GiB")
DTYPE: Final = OneOf(("auto", "bfloat16", "float16", "float32"))
CACHE_SCOPE: Final = OneOf(("tenant", "request"))

# The door, beyond who may ask.
REQUESTS_PER_MINUTE: Final = Whole(1, 10_000_000)
TOKENS_PER_MINUTE: Final = Whole(1, 10_000_000_000)
CONCURRENT: Final = Whole(1, 1024, "completions")
QUEUE_LENGTH: Final = Whole(0, 512, "requests")
QUEUE_SECONDS: Final = Whole(1, 600, "seconds")
PAD: Final = Whole(0, 16384, "bytes")
BATCH: Final = Whole(0, 5000, "milliseconds")
RECEIPTS_KEPT: Final = Whole(1000, 10_000_000, "receipts")
CANARY_EVERY: Final = Whole(10, 86400, "seconds")
EXPECTED_MAX: Final = 64
TOKEN: Final = Whole(0, (1 << 31) - 1)
TITLE: Final = Line(100)

# The local key socket: whom a rule may name, and what it may give.
UNIT: Final = Text(
    re.compile(r"[A-Za-z0-9][A-Za-z0-9:_.@\\-]{0,127}\.service"), "the full name of a service unit"
)
UID: Final = Whole(0, (1 << 32) - 2)
KEY_PATH: Final = Text(re.compile(r"\*|[!-)+-~]{1,128}"), "1..128 visible characters without *, or * alone")
APP_ID: Final = Text(re.compile(r"[0-9a-f]{40}"), "40 lowercase hex digits (20 bytes)")
KEYS_ROOT: Final = OneOf(("broker", "vtpm", "ephemeral"))
KEY_EPOCH: Final = Whole(1, (1 << 32) - 1)
FLAG: Final = Flag()
RULES_MAX: Final = 64
PATHS_MAX: Final = 32

# The local REST of Confidential Containers: what a rule may list, and whose word on sealed secrets counts.
_PART: Final = r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}"
RESOURCE_PATTERN: Final = Text(
    re.compile(rf"\*|{_PART}/({_PART}/)?|{_PART}/{_PART}/{_PART}"),
    "REPOSITORY/TYPE/TAG, or REPOSITORY/ or REPOSITORY/TYPE/ for all below it, or *",
)
KID: Final = Text(re.compile(r"[!-~]{1,256}"), "1..256 visible characters")
COORDINATE: Final = Text(re.compile(r"[A-Za-z0-9_-]{43}"), "43 characters of base64url (32 bytes)")
SIGNERS_MAX: Final = 16

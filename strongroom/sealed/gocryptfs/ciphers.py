"""Everything that opens and seals parts of one volume, made from its master key."""

from dataclasses import dataclass, field
from typing import Self

from strongroom.sealed.gocryptfs.attributes import AttributeCipher
from strongroom.sealed.gocryptfs.config import Settings
from strongroom.sealed.gocryptfs.content import ContentCipher
from strongroom.sealed.gocryptfs.keys import SubKeys
from strongroom.sealed.gocryptfs.names import NameCipher
from strongroom.sealed.keys import Octets


@dataclass(frozen=True, slots=True)
class Ciphers:
    """Usable from several threads."""

    settings: Settings
    names: NameCipher = field(repr=False)
    content: ContentCipher = field(repr=False)
    attributes: AttributeCipher = field(repr=False)

    @classmethod
    def make(cls, master_key: Octets, settings: Settings) -> Self:
        keys = SubKeys.derive(master_key, settings)
        names, content = NameCipher(keys.names, settings), ContentCipher(keys.content, settings.cipher)
        return cls(settings, names, content, AttributeCipher(content, names, settings))

"""Every kind of collateral there is, by the name its entries carry."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from strongroom.host.collateral.amd import AMDChip, AMDIssuers
from strongroom.host.collateral.intel import IntelPlatform
from strongroom.host.collateral.item import Item
from strongroom.host.collateral.nvidia import NVIDIAManifest, NVIDIAStatus

KINDS: Final[Mapping[str, type[Item]]] = MappingProxyType(
    {kind.kind: kind for kind in (AMDChip, AMDIssuers, IntelPlatform, NVIDIAManifest, NVIDIAStatus)}
)

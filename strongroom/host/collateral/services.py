"""The vendors' attestation services: every host this software may ask for collateral is on this page.

Whoever runs a mirror of one names it instead. All that is kept is signed by the vendor, so a mirror can withhold
news, and only until what is kept expires; it can make nothing up.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from strongroom.host.collateral.item import Vendor
from strongroom.host.fetch import Pin, checked_url


@dataclass(frozen=True, slots=True)
class Service:
    """Where a service is, and who may answer there. ConfigError for what is no plain https URL."""

    url: str
    pin: Pin = field(default_factory=lambda: Pin(system=True))

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", checked_url(self.url))


Services = Mapping[Vendor, Service]

PUBLIC: Final[Services] = MappingProxyType(
    {
        Vendor.AMD_KDS: Service("https://kdsintf.amd.com"),
        Vendor.INTEL_PCS: Service("https://api.trustedservices.intel.com"),
        Vendor.INTEL_ROOT: Service("https://certificates.trustedservices.intel.com"),
        Vendor.NVIDIA_RIM: Service("https://rim.attestation.nvidia.com"),
        Vendor.NVIDIA_OCSP: Service("https://ocsp.ndis.nvidia.com"),
    }
)

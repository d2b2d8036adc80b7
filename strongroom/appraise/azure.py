"""What a policy says of an Azure confidential VM: the section `azure`.

    require_secure_boot: true       default
    allow_console: false            default; firmware that does not say counts as open
    vm_ids: [TEXT, ...]             default: any

The hardware under it is judged as everywhere, by the policy's own keys or its section `tdx`; it is not fresh, and
what the guest booted is in its vTPM: a section `tpm` is what speaks about that.
"""

from dataclasses import dataclass
from typing import Final, Self

from strongroom.appraise.raw import Raw
from strongroom.appraise.result import Result, any_of, refused
from strongroom.verify.azure import AzureClaims

_WORDS: Final = {True: "on", False: "off", None: "unknown"}


@dataclass(frozen=True, slots=True, kw_only=True)
class AzurePolicy:
    require_secure_boot: bool = True
    allow_console: bool = False
    vm_ids: tuple[str, ...] | None = None  # None accepts any

    @classmethod
    def from_raw(cls, raw: Raw) -> Self:
        members = raw.mapping({"require_secure_boot", "allow_console", "vm_ids"})
        flags = {key: member.flag() for key, member in members.items() if key != "vm_ids"}
        ids = members.get("vm_ids")
        return cls(**flags, vm_ids=None if ids is None else tuple(item.text() for item in ids.items()))


def appraise_azure(claims: AzureClaims | None, policy: AzurePolicy | None) -> list[Result]:
    """One result for each check where there is a paravisor's report or a section."""
    if policy is None:
        return [] if claims is None else [refused("azure", "an azure paravisor", "azure")]
    if claims is None:
        return [Result("azure", False, "absent", "an azure paravisor")]
    boot, console = claims.secure_boot, claims.console_enabled
    ids = policy.vm_ids
    return [
        Result(
            "secure boot",
            boot or not policy.require_secure_boot,
            _WORDS[boot],
            "on" if policy.require_secure_boot else "any",
        ),
        Result(
            "console",
            console is False or policy.allow_console,
            _WORDS[console],
            "any" if policy.allow_console else "off",
        ),
        Result(
            "vm id",
            ids is None or claims.vm_unique_id in ids,
            claims.vm_unique_id or "unknown",
            "any" if ids is None else any_of(ids),
        ),
    ]

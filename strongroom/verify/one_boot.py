"""Do two pieces of evidence speak of one boot of one machine? By everything that stays as it is from launch to end.

Left out is what may change under a running guest: firmware levels, the TDX module, a certificate's form.
"""

from typing import Final

from strongroom.errors import VerifyError
from strongroom.verify.claims import Claims

_SHOWN: Final = 8  # hex digits: enough to tell two machines apart, too few to follow one around


def check_one_boot(earlier: Claims, now: Claims, name: str) -> None:
    """VerifyError unless evidence called `name` was made `earlier` in the very boot that is evident `now`."""
    found, wanted = _lasting(earlier), _lasting(now)
    for what in (*found, *(field for field in wanted if field not in found)):
        if found.get(what) != wanted.get(what):
            raise VerifyError(
                f"{name}: {what} is {_shown(found.get(what))}, want {_shown(wanted.get(what))}: "
                "one boot of one machine"
            )
    if not _grew(earlier, now):
        raise VerifyError(
            f"{name}: event log is another, want a beginning of that of now: one boot of one machine"
        )


def _lasting(claims: Claims) -> dict[str, object]:
    found: dict[str, object] = {
        "tee": claims.tee,
        "product": claims.product,
        "root": claims.root_sha256,
        "measurement": claims.measurement,
        "host_data": claims.host_data,
        "chip id": claims.chip_id,
        "report id": claims.report_id,
        "vmpl": claims.vmpl,
        "debug": claims.debug,
        "migration": claims.migration,
        "smt": claims.smt,
    }
    if (td := claims.tdx) is not None:
        found |= {
            "platform": td.pck.ppid,
            "platform instance": td.pck.platform_instance_id,
            "fmspc": td.fmspc,
            "td_attributes": td.body.td_attributes,
            "xfam": td.body.xfam,
            "mr_owner": td.body.mr_owner,
            "mr_owner_config": td.body.mr_owner_config,
            **{f"rtmr{n}": td.body.rtmrs[n] for n in range(3)},  # the last one follows the event log
        }
    if claims.tpm is not None:
        found |= {"tpm key": claims.tpm.key_sha256, "tpm reset count": claims.tpm.reset_count}
    if claims.azure is not None:
        found["vm id"] = claims.azure.vm_unique_id
    return found | _devices(claims)


def _devices(claims: Claims) -> dict[str, object]:
    if claims.devices is None:
        return {"gpus": b"", "switches": b""}
    both = {"gpus": claims.devices.devices.gpus, "switches": claims.devices.devices.switches}
    return {kind: b"".join(sorted(device.pdi for device in devices)) for kind, devices in both.items()}


def _grew(earlier: Claims, now: Claims) -> bool:
    if earlier.events is None or now.events is None:
        return earlier.events is now.events
    return now.events.events[: len(earlier.events.events)] == earlier.events.events


def _shown(value: object) -> str:
    if not isinstance(value, bytes):
        return "none" if value is None else str(value)
    return f"{value.hex()[:_SHOWN]}…" if value else "none"

"""GET /v1/aci/attestation, in the form of the aci/1 draft. Pure: the agent's answer comes as an argument.

Its report data are 32 bytes and zeros, so the agent makes such a report only where no program of the machine may have
evidence over bytes of its own choice: see guest/foreign.py.
"""

import json
from typing import Final

from sidecars.proxy.face import legacy
from sidecars.proxy.face.facts import Facts
from strongroom.host.foreign import ForeignReport
from strongroom.receipts.aci import VERSION, Keyset
from strongroom.wire.canonical import JSON

_TEES: Final = {"snp": "sev_snp", "tdx": "tdx"}


def attestation(made: ForeignReport, facts: Facts, *, keyset: Keyset, nonce: bytes | None) -> dict[str, JSON]:
    body = legacy.td_body(made)
    evidence: dict[str, JSON] = {
        "quote": legacy.quote(made, body).hex(),
        "quote_report_data": made.report_data.hex(),
        "event_log": json.dumps(legacy.log(made, body), separators=(",", ":")),
        "app_compose": "",
        "vm_config": "",
        "info": legacy.info(made, body, facts),
        **legacy.snp_members(made),
    }
    if facts.gpus.count or made.devices:  # null where they were not asked
        evidence["nvidia_payload"] = None if nonce is None else legacy.nvidia_payload(made, facts, nonce)
    return {
        "api_version": VERSION,
        "workload_keyset_digest": keyset.digest,
        "attestation": {
            "tee_type": _TEES[made.tee],
            "workload_keyset": keyset.to_json(),
            "report_data": made.report_data.hex(),
            "source_provenance": {
                "repo_url": None,
                "repo_commit": None,
                "image_digest": None,
                "image_provenance": None,
            },
            "evidence": evidence,
        },
        "service_capabilities": {"supported_e2ee_versions": [], "serving": "direct"},
    }

"""What the door shows of the machine: to programs, to clients of other people's interfaces, and to people.

answers   every GET, as one value
facts     what is shown, gathered once
page      for people: one HTML document, nothing outside it
legacy    the report of dstack's vllm-proxy
attested  the attestation of aci/1
boot      the agent's boot record, asked for now and then
"""

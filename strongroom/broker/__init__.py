"""Key release, both ends: the RCAR exchange of the CoCo key broker service, protocol 0.4.0, without any I/O.

guest (exchange.py)                      broker (desk.py)
  POST /kbs/v0/auth      Request    ->     a session and a nonce
                         Challenge  <-
  POST /kbs/v0/attest    Attestation ->    evidence verified against that nonce, once
                         token      <-
  GET /kbs/v0/resource/r/t/g        ->     appraised under that resource's own policy
                         JWE        <-     sealed to the guest's key of this exchange
"""

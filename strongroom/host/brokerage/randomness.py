"""The system's randomness, as the broker's desk asks for it."""

import secrets

from cryptography.hazmat.primitives.asymmetric import ec


class SystemRandomness:
    def octets(self, n: int) -> bytes:
        return secrets.token_bytes(n)

    def key(self, curve: ec.EllipticCurve) -> ec.EllipticCurvePrivateKey:
        return ec.generate_private_key(curve)

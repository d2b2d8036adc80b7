"""Encrypted layers of container images as skopeo and the OCIcrypt library write them: JWE, AES-256-CTR, HMAC-SHA256.

The scheme keeps a layer secret. It does not say who made it: whoever has the public key can encrypt a layer for us.
Which image is meant is said by its manifest's digest, which therefore has to come from someone we trust.
"""

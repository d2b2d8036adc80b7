"""What every door of a guest is made of: an identity with evidence, bounded connections, strict HTTP/1.1, and a no.

identity  a TLS key made here, and the machine's evidence for it
peer      one client's TLS connection on an asyncio loop, every buffer and every wait bounded
http      the server's half of HTTP/1.1, sans-IO
turns     who may ask for evidence, and how many wait
refusal   what a door says when it says no
reply     the answer to one request
"""

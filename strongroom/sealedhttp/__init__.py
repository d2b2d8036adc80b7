"""Sealed bodies: one HTTP request and its answer, readable by an attested machine and by nothing before it.

keys       what a machine opens requests with, and what a client seals them to
request    a request as one sealed body
response   its answer as a sequence of frames, sealed under a secret that the request brought
replay     which requests were taken before
"""

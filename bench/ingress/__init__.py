"""`make bench-ingress`: what the door costs beside a plain TLS proxy, and beside Python that does the same work.

engine.c          an engine that computes nothing, on a unix socket
load.c            clients that ask, and read streams
ours.py           the door's process, without a machine behind it
plain_python.py   the same work on aiohttp, as most would write it
subjects.py       those two, haproxy and nginx, each started the same way
cases.py          what is asked of each, in turns
report.py         tables for people, one object for programs
"""

"""The room behind the broker's desk: what it keeps, who may have it, who changed it, and what was decided.

root.py, tpm.py     where the root key comes from: a file, a credential, a TPM
sealing.py          what is sealed under it
database.py         one SQLite file, every commit on the disk before it returns
ledger.py           the audit log: a chain of lines, in the transaction of what they speak about
rule.py, rego.py    a resource's policy
rulebook.py         everything that decides, read at once and authenticated
house.py            the open broker directory
change.py           one transaction on it
rotation.py         a new root key
keeper.py           answers the desk's questions
actors.py           who administers it
administration.py   what administrators do: resources.py, standing.py, with arguments.py
recorder.py         decisions to the log, before they are told
decisions.py        which of them have a line, and which are counted
metrics.py          counts
"""

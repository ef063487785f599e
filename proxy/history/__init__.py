"""History in and out: other tools' records of past calls, read and written.

Owns: the importers, their registry, the reading of files of any size, the
markers that keep an import from counting twice, and the exporters. Must never:
run on the request path, hold a whole file in memory, or keep a prompt.
"""

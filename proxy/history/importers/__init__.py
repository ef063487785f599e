"""One importer a file, each defining ``IMPORTER``.

Owns: the knowledge of other tools' formats. Must never: open a file, keep a
prompt, or guess a count that the export does not hold.
"""

"""What can go wrong with the store, as callers need to tell it apart.

Owns: the exception types. Must never: hold credentials of a URL.
"""

from __future__ import annotations


class StoreError(Exception):
    """Base of all."""


class StoreUnavailableError(StoreError):
    """The store did not answer: away, too slow, failing over. Try later."""


class StoreRefusedError(StoreError):
    """The store answered and would not write (memory full, disk error). Reads work."""


class StoreForbiddenError(StoreError):
    """The store's user may not do what Tokenweir needs; a person must mend it."""


class ConflictError(StoreError):
    """The document is not at the version that the caller expected."""


class StoreSchemaError(StoreForbiddenError):
    """The store's data is of a later version than this one can read."""

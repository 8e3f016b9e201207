"""Newer models, training hooks, retrieval and reranking on top of RecBole 1.2.1.

Importing the package makes RecBole work on the installed versions of its libraries
(`recbole_ext.compat`); nothing heavy is imported for that: each repair waits for the module of
RecBole that it mends.
"""

from recbole_ext import compat

__version__ = "0.1.0"

compat.apply()

"""Templates of texts: words with fields in braces, as ``{title} ({year})``."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence

from recbole_ext.types import UserError, suggest


class Template:
    """A template whose fields are known to be there.

    Args:
        text: A field is ``{title}``, a brace ``{{`` or ``}}``; formats of Python are refused, for
            a text is all that a field has.
        allowed: Fields that there are.
        where: The template, and whose fields these are, for errors: ``the template of profiles``.

    Attributes:
        fields: Those in it, in order.

    Raises:
        UserError: It has no field, one that is not there, or one with a format.
    """

    def __init__(self, text: str, allowed: Sequence[str], where: str) -> None:
        example = allowed[0] if allowed else "title"
        try:
            self._parts = list(string.Formatter().parse(text))
        except ValueError as error:
            raise UserError(
                f"{where}: {error}; fields are written {{{example}}}, a brace {{{{ or }}}}"
            ) from None
        self.fields = [name for _, name, _, _ in self._parts if name is not None]
        for _, name, form, conversion in self._parts:
            if name is None:
                continue
            if name not in allowed:
                raise UserError(
                    f"{where} has no field '{name}'{suggest(name, allowed)} (its fields are "
                    f"{', '.join(allowed)})"
                )
            if form or conversion:
                raise UserError(
                    f"{where}: the field '{name}' has a format; write {{{name}}} and nothing else "
                    "between the braces"
                )
        if not self.fields:
            raise UserError(f"{where} has no field; write one as {{{example}}}")

    def fill(self, row: Mapping[str, str]) -> str:
        """Return the text with the fields of a row."""
        return "".join(
            literal + ("" if name is None else row[name]) for literal, name, _, _ in self._parts
        )

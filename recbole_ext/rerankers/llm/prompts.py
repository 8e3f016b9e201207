"""Prompts: a template in a text file that a user can copy and change, and what it becomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from recbole_ext.features.template import Template
from recbole_ext.types import UserError

FOLDER = Path(__file__).resolve().parent.parent / "prompts"
MARK = "---"
"""A line that ends the system's words; without it there are none."""
NO_HISTORY = "(nothing yet)"


@dataclass(frozen=True)
class Prompt:
    """What a language model is asked."""

    user: str
    system: str = ""

    def messages(self) -> list[dict[str, str]]:
        """Return it as a chat."""
        said = [{"role": "system", "content": self.system}] if self.system else []
        return [*said, {"role": "user", "content": self.user}]

    def plain(self) -> str:
        """Return it as one text for a model without a chat template; the answer begins a line."""
        parts = [self.system, self.user, "Answer:"]
        return "\n\n".join(part for part in parts if part) + "\n"


class PromptTemplate:
    """A template of prompts.

    Args:
        path: A text file; see ``recbole_ext/rerankers/prompts/``.
        fields: All that it must have, each once.

    Raises:
        UserError: The file cannot be read, or lacks a field, or has one that there is not.
    """

    def __init__(self, path: Path, fields: Sequence[str]) -> None:
        try:
            self.text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"prompt: the template {path} cannot be read ({error}); name a text file, as a "
                f"copy of one in {FOLDER}"
            ) from error
        parts = f"\n{self.text}".split(f"\n{MARK}\n")
        if len(parts) > 2:
            raise UserError(
                f"prompt: the template {path} has {len(parts) - 1} lines '{MARK}'; keep one, which "
                "ends the system's words"
            )
        self._system = parts[0].strip() if len(parts) == 2 else ""
        self._user = Template(parts[-1].strip(), fields, f"prompt: the template {path}")
        for name in fields:
            if (n := self._user.fields.count(name)) != 1:
                raise UserError(
                    f"prompt: the template {path} has the field {{{name}}} {n} times below its "
                    "system's words; it is needed once"
                )

    def fill(self, history: Sequence[str], **fields: str) -> Prompt:
        """Return the prompt.

        Args:
            history: Titles, the oldest first.
            fields: The other fields.
        """
        lines = "\n".join(f"- {title}" for title in history) or NO_HISTORY
        return Prompt(self._user.fill({"history": lines, **fields}), self._system)


def template_of(name: str, path: str | None, fields: Sequence[str]) -> PromptTemplate:
    """Return the template that a user names, or the package's own of that name."""
    return PromptTemplate(Path(path) if path else FOLDER / f"{name}.txt", fields)

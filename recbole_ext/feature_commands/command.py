"""``recbole-ext features ...``: each command is a function, whose arguments are the options."""

from __future__ import annotations

from collections.abc import Callable

from recbole_ext.arguments import call_or_help
from recbole_ext.feature_commands.images import encode_images
from recbole_ext.feature_commands.look import inspect_feature
from recbole_ext.feature_commands.pictured import write_captions, write_summaries
from recbole_ext.feature_commands.texts import encode_texts
from recbole_ext.feature_commands.vectors import export_vectors, import_vectors
from recbole_ext.feature_commands.written import write_descriptions, write_profiles
from recbole_ext.types import UserError, suggest

COMMANDS: dict[str, Callable[..., None]] = {
    "text": encode_texts,
    "image": encode_images,
    "profile": write_profiles,
    "describe": write_descriptions,
    "import": import_vectors,
    "export": export_vectors,
    "inspect": inspect_feature,
}
PICTURED: dict[str, Callable[..., None]] = {
    "captions": write_captions,
    "summaries": write_summaries,
}


def run(arguments: list[str]) -> int:
    """Do ``recbole-ext features <what> --key=value ...``."""
    what, *rest = arguments or [""]
    if what not in COMMANDS:
        hint = suggest(what, COMMANDS) if what else ""
        raise UserError(f"features: one of {', '.join(COMMANDS)} is meant, not '{what}'{hint}")
    return _done(COMMANDS[what], rest, f"recbole-ext features {what}")


def _done(command: Callable[..., None], arguments: list[str], name: str) -> int:
    try:
        return call_or_help(command, arguments, name)
    except KeyboardInterrupt as interrupt:  # before or after the work, which says what is kept
        interrupt.args = interrupt.args or ("the same command goes on",)
        raise


def run_pictured(what: str, arguments: list[str]) -> int:
    """Do ``recbole-ext captions|summaries --key=value ...``."""
    return _done(PICTURED[what], arguments, f"recbole-ext {what}")

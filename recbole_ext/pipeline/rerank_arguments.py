"""The command line of ``rerank``: its own options, and those of the reranker that it names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from recbole_ext.arguments import asks_for_help, call, help_of, options_of
from recbole_ext.paths import reranker_yaml
from recbole_ext.pipeline.ranking import Ranking
from recbole_ext.pipeline.rerank_command import rerank_candidates
from recbole_ext.pipeline.rerank_report import report_of
from recbole_ext.rerankers.build import find_reranker, reranker_files
from recbole_ext.settings_reading import parse_overrides, read_yaml
from recbole_ext.types import UserError, suggest

COMMAND = "recbole-ext rerank"


def run(arguments: Sequence[str]) -> int:
    """Rerank by ``--key=value`` arguments and print the report, or the help where it is asked for.

    Raises:
        UserError: A key that neither the command nor the reranker has, or a bad value.
    """
    if asks_for_help(arguments):
        print(rerank_help(arguments))
        return 0
    names = options_of(_command())
    own: list[str] = []
    rest: list[str] = []
    for one in arguments:
        (own if one.partition("=")[0].removeprefix("--") in names else rest).append(one)
    settings = parse_overrides(rest)
    _refuse_unknown(arguments, settings, list(names))
    result = call(_command(settings), own, COMMAND)
    print(f"{report_of(result)}\nfolder: {result['folder']}")
    return 0


def _command(settings: dict[str, Any] | None = None) -> Callable[..., Any]:
    """Return the command as a function of its own options alone."""

    def command(
        candidates: str,
        ranking: Ranking,
        reranker: str | None = None,
        reranker_dir: str | None = None,
        train_split: str | None = None,
        seed: int = 2020,
        output_dir: str | None = None,
    ) -> dict[str, Any]:
        return rerank_candidates(
            candidates, ranking, reranker, reranker_dir, train_split, seed, output_dir, settings
        )

    command.__doc__ = rerank_candidates.__doc__
    return command


def _refuse_unknown(
    arguments: Sequence[str], settings: dict[str, Any], names: Sequence[str]
) -> None:
    """Refuse what neither the command nor the reranker knows, with the nearest of both."""
    wanted = [a.partition("=")[2] for a in arguments if a.startswith("--reranker=")]
    theirs: list[str] = []
    if wanted and wanted[0].partition(":")[0] in reranker_files():
        theirs = list(read_yaml(reranker_yaml(wanted[0].partition(":")[0])))
    for key in (key.partition(".")[0] for key in settings):
        if wanted and not theirs:
            find_reranker(wanted[0])  # a misspelt one is what is wrong
        if key not in theirs:
            hint = suggest(key, [*names, *theirs]) or f"; there are --{', --'.join(names)}"
            raise UserError(f"{COMMAND} has no --{key}{hint}")


def rerank_help(arguments: Sequence[str]) -> str:
    """Return the help, with the settings of the reranker that is named, if one is."""
    text = help_of(_command(), COMMAND)
    for argument in arguments:
        name = argument.removeprefix("--reranker=").partition(":")[0]
        if argument.startswith("--reranker=") and name in reranker_files():
            return f"{text}\n\n{reranker_yaml(name).read_text(encoding='utf-8').strip()}"
    names = ", ".join(reranker_files())
    return f"{text}\n\nRerankers: {names}. Add --reranker=<name> for its own settings."

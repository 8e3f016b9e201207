"""The command line: ``recbole-ext run|compare|explain|doctor`` and the others of :data:`HELP`."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path
from typing import Any

# Before torch is imported: threads that wait give their core away. Spinning, the default, makes a
# step several times slower as soon as another process wants the cores. Some microseconds of it are
# allowed (GNU OpenMP counts rounds): without, two threads were slower than one in small operations.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

from recbole_ext.settings_reading import files_in  # noqa: E402
from recbole_ext.stopping import sigterm_as_interrupt  # noqa: E402
from recbole_ext.types import UserError, suggest  # noqa: E402

HELP = {
    "run": """\
  run      train and test a model:      recbole-ext run --model=FTRagRec --dataset=ml-100k
           with settings files:         --config_files="a.yaml b.yaml"
           with any setting:            --epochs=5 --eval_args.mode=uni100 --topk=[5,10]
           continue a run:              recbole-ext run --resume=runs/FTRagRec-ml-100k-...""",
    "compare": """\
  compare  several models, datasets and seeds; goes on where it was stopped:
           recbole-ext compare --models=Pop,BPR,SASRec --datasets=ml-100k --seeds=3
           these seeds:                 --seeds=1,2,3 (one of them: --seeds=7,)
           any setting, for all:        --epochs=5 --topk=[5,10]
           settings files, for all:     --config_files="shop.yaml more.yaml"
           settings by model, variants: --overrides=file.yaml (examples/compare_*.yaml)
           where to:                    --output_dir=runs/compare
           with FTRagRec's controls:    --models=DuoRec,FTRagRec --controls
           the report once more:        recbole-ext compare --report=runs/compare""",
    "ablate": """\
  ablate   a model with each of its switches alone, and with all; a comparison as by `compare`:
           recbole-ext ablate --model=JointRec --dataset=ml-100k --switches=bank,curriculum
           switches of your own:        --switches_file=file.yaml""",
    "tune": """\
  tune     searches settings; goes on where it was stopped, in several processes if given so often:
           recbole-ext tune --model=BPR --dataset=ml-100k --space=space.yaml --trials=20
           a line of the space:         learning_rate: {loguniform: [1e-4, 1e-2]}
           all trials to their end:     --prune=False
           where to:                    --output_dir=runs/tune""",
    "explain": """\
  explain  the neighbours behind a user's list:
           recbole-ext explain --run=runs/FTRagRec-ml-100k-... --user=196 --k=10""",
    "slices": """\
  slices   a finished run's test by parts: warm and cold items, with and without its features:
           recbole-ext slices --run=runs/TextPreferenceRetriever-ml-100k-... --cold=5""",
    "diagnose": """\
  diagnose what is wrong with a run, its data or its model:
           recbole-ext diagnose --run=runs/BPR-ml-100k-...""",
    "score": """\
  score    newer data by a trained model of news, new news among them, without training:
           recbole-ext score --run=runs/KGNewsRec-mind-... --dataset=today --out=today.tsv""",
    "candidates": """\
  candidates  stage one: the best items of every user by any trained model
           recbole-ext candidates --run=runs/SASRec-ml-100k-... --k=200 --history=mask
           several as one:              --merge=rrf --from=runs/a,runs/b
           what else there is to say:   recbole-ext candidates --help""",
    "rerank": """\
  rerank   stage two: candidates in another order, and what that is worth
           recbole-ext rerank --candidates=runs/candidates-... --reranker=popularity
           among sampled items:         --mode=ground_truth
           what else there is to say:   recbole-ext rerank --help""",
    "pipeline": """\
  pipeline both stages with all their training; goes on where it was stopped
           recbole-ext pipeline --config=properties/pipeline/two_stage.yaml
           any of its settings:         --dataset=ml-1m --reranker=popularity""",
    "features": """\
  features vectors of texts and images: text, image, profile, describe, import, export, inspect
           recbole-ext features text --dataset=ml-100k --name=title --template="{movie_title}"
           what else there is to say:   recbole-ext features text --help""",
    "convert": """\
  convert  raw files (movielens, amazon, mind) to a dataset:
           recbole-ext convert amazon --source=raw/beauty --out=data/beauty --min_uc=5 --min_sc=5
           what else there is to say:   recbole-ext convert amazon --help""",
    "images": """\
  images   downloads the pictures that a conversion found links of; goes on where it was stopped:
           recbole-ext images --links=data/beauty/images.csv --out=data/beauty/images
           what else there is to say:   recbole-ext images --help""",
    "captions": """\
  captions a model that reads pictures describes each item's:
           recbole-ext captions --dataset=beauty --images=images/ --model=blip2-opt-2.7b
           what else there is to say:   recbole-ext captions --help""",
    "summaries": """\
  summaries  the same from picture and text: what an item is, and whom it may suit:
           recbole-ext summaries --dataset=beauty --images=images/ --model=qwen3-vl-2b""",
    "doctor": """\
  doctor   what is installed, what was repaired, what is missing""",
}
HELPED = ("images", "candidates", "rerank", "captions", "summaries", "diagnose", "score")
_BODY = (
    "usage: recbole-ext {}\n\n{}\n\nExit codes: 0 done, 1 a failure, 2 bad input, 130/143 stopped."
)
USAGE = _BODY.format("COMMAND [--key=value ...]", "\n".join(HELP.values()))

_NO_PLACE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
_SHORT = {"-m": "--model", "-d": "--dataset"}
_SPACED = (
    "--model",
    "--dataset",
    "--config_files",
    "--resume",
    "--output_dir",
    "--run",
    "--user",
    "--k",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; bad input is one sentence on stderr and exit code 2."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE)
        return 0 if arguments else 2
    if arguments[0] == "--version":
        from recbole_ext import __version__

        print(f"recbole_ext {__version__}")
        return 0
    commands: dict[str, Callable[[list[str]], int]] = {
        "run": _run,
        "compare": _compare,
        "ablate": _ablate,
        "tune": _tune,
        "explain": _explain,
        "slices": _slices,
        "diagnose": partial(_run_in, "diagnose.command"),
        "score": partial(_run_in, "score"),
        "candidates": partial(_run_in, "pipeline.candidates_command"),
        "rerank": partial(_run_in, "pipeline.rerank_arguments"),
        "pipeline": _pipeline,
        "features": partial(_run_in, "feature_commands.command"),
        "convert": partial(_run_in, "data_commands.convert"),
        "images": partial(_run_in, "data_commands.images"),
        "captions": partial(_pictured, "captions"),
        "summaries": partial(_pictured, "summaries"),
        "doctor": _doctor,
    }
    if arguments[0] not in commands:
        hint = suggest(arguments[0], commands) or f"; the commands are {', '.join(commands)}"
        return _complain(f"unknown command '{arguments[0]}'{hint}")
    # those of functions have a help of their own, features and convert behind their first word
    first = dict.fromkeys(("features", "convert"), arguments[1:2])
    asks = {**first, **dict.fromkeys(HELPED, [])}.get(arguments[0], arguments[1:])
    if any(argument in ("-h", "--help") for argument in asks):
        print(_BODY.format(f"{arguments[0]} [--key=value ...]", HELP[arguments[0]]))
        return 0
    with sigterm_as_interrupt() as came:
        return _do(commands[arguments[0]], arguments, came)


def _do(command: Callable[[list[str]], int], arguments: list[str], came: list[int]) -> int:
    """Do a command; ``came`` has the signal that stopped it, where that was not Ctrl-C."""
    try:
        if arguments[0] != "doctor":  # which says what else is missing, too
            _need_recbole()
        return command(arguments[1:])
    except UserError as error:
        return _complain(str(error))
    except OSError as error:
        if error.errno not in _NO_PLACE:
            raise
        return _complain(
            f"writing failed: {error.strerror}; free space or choose another --output_dir "
            "(what a run folder holds already is whole)"
        )
    except KeyboardInterrupt as interrupt:
        hint = interrupt.args[0] if interrupt.args else "the run had not begun: give it once more"
        print(f"\nrecbole-ext: interrupted; {hint}", file=sys.stderr)
        return 128 + came[0] if came else 130


def _need_recbole() -> None:
    """Refuse to start without the RecBole that is meant, which pip may have replaced or left out.

    Raises:
        UserError: With the command that installs it.
    """
    from recbole_ext.doctor import recbole_problem

    if problem := recbole_problem():
        raise UserError(problem)


def _run(arguments: list[str]) -> int:
    options, overrides = _split(arguments, ("model", "dataset", "config_files", "resume"))
    if options.get("resume") == "":
        raise UserError("--resume is empty; give the run folder to continue")
    from recbole_ext.quick_start import run
    from recbole_ext.report import result_table

    if options.get("resume"):
        if more := sorted(options.keys() - {"resume"}):
            sentence = "--resume takes model, dataset and settings from the run folder; leave out"
            raise UserError(f"{sentence} --{', --'.join(more)}")
        if any(argument.startswith("--output_dir=") for argument in overrides):
            raise UserError("--resume writes into the run folder itself; leave out --output_dir")
        result = run(resume=options["resume"], overrides=overrides)
    else:
        files = files_in(options.get("config_files", ""))
        result = run(options.get("model"), options.get("dataset"), files, overrides=overrides)
    print(result_table(result))
    return 0


def _compare(arguments: list[str]) -> int:
    names = ("models", "datasets", "seeds", "config_files", "overrides", "output_dir", "report")
    controls = "--controls" in arguments
    options, overrides = _split([one for one in arguments if one != "--controls"], names)
    if "report" in options:
        if not options["report"] or overrides or controls or len(options) > 1:
            raise UserError("--report stands alone: recbole-ext compare --report=<its output_dir>")
        from recbole_ext.compare.report import write_report

        print(write_report(Path(options["report"])))
        return 0
    models, datasets = (
        list(dict.fromkeys(filter(None, options.get(name, "").split(","))))
        for name in ("models", "datasets")
    )
    lists = {"models": models, "datasets": datasets}
    _need(lists, ("models", "datasets"), "compare --models=Pop,BPR --datasets=ml-100k")
    from recbole_ext.compare.overrides import read_overrides

    files = files_in(options.get("config_files", ""))
    given = read_overrides(options.get("overrides"), models, datasets, files)
    place = Path(options.get("output_dir") or "runs/compare")
    return _run_plan(models, datasets, place, options, given, overrides, controls)


def _ablate(arguments: list[str]) -> int:
    names = ("model", "dataset", "seeds", "config_files", "overrides", "output_dir")
    options, overrides = _split(arguments, (*names, "switches", "switches_file"))
    _need(options, ("model", "dataset"), "ablate --model=JointRec --dataset=ml-100k")
    model, dataset = options["model"], options["dataset"]
    from recbole_ext.compare.ablation import ablation_of
    from recbole_ext.compare.overrides import read_overrides
    from recbole_ext.registry import get_model

    get_model(model)  # a misspelt one has no switches, and this says so better
    files = files_in(options.get("config_files", ""))
    given = read_overrides(options.get("overrides"), [model], [dataset], files)
    switches = [name for name in options.get("switches", "").split(",") if name]
    wanted = ablation_of(model, given, switches, options.get("switches_file"))
    place = Path(options.get("output_dir") or f"runs/ablation-{model}-{dataset}")
    return _run_plan([model], [dataset], place, options, wanted, overrides)


def _tune(arguments: list[str]) -> int:
    from recbole_ext.tune.command import OPTIONS, run

    return run(*_split(arguments, OPTIONS))


def _run_plan(
    models: list[str],
    datasets: list[str],
    place: Path,
    options: dict[str, Any],
    given: Any,
    overrides: list[str],
    controls: bool = False,
) -> int:
    from recbole_ext.compare.plan import plan, seeds_of
    from recbole_ext.compare.report import write_report
    from recbole_ext.compare.runner import read_dataset, run_all, sole_command

    seeds = seeds_of(options.get("seeds", "3"))
    with ExitStack() as held:

        @cache
        def hold() -> None:  # not before the data are read: a slip leaves no folder
            held.enter_context(sole_command(place))

        def read(dataset: str, wanted: Any) -> str:
            hold()
            return read_dataset(dataset, wanted, place)

        runs = plan(models, datasets, seeds, place, given, overrides, controls, read)
        failures = run_all(runs, place)
        print(write_report(place))
    return 1 if failures else 0


def _explain(arguments: list[str]) -> int:
    options, rest = _split(arguments, ("run", "user", "k"))
    _refuse_rest("explain", rest, ("run", "user", "k"))
    _need(options, ("run", "user"), "explain --run=<run folder> --user=<user token> [--k=10]")
    from recbole_ext.report import explain_user

    k = options.get("k", "10")
    if not k.isdecimal() or int(k) == 0:
        raise UserError(f"--k takes a number of neighbours, not '{k}'")
    print(explain_user(Path(options["run"]), options["user"], int(k)))
    return 0


def _run_in(module: str, arguments: list[str]) -> int:
    """Run a command that reads its arguments itself."""
    return importlib.import_module(f"recbole_ext.{module}").run(arguments)


def _pictured(what: str, arguments: list[str]) -> int:
    from recbole_ext.feature_commands.command import run_pictured

    return run_pictured(what, arguments)


def _pipeline(arguments: list[str]) -> int:
    options, overrides = _split(arguments, ("config",))
    if options.get("config") == "":
        raise UserError(
            "--config is empty; give a YAML file, as properties/pipeline/two_stage.yaml"
        )
    from recbole_ext.pipeline.rerank_report import report_of
    from recbole_ext.pipeline.two_stage import read_plan, run_pipeline

    result = run_pipeline(read_plan(options.get("config"), overrides))
    print(f"\n{report_of(result)}\nfolder: {result['folder']}")
    return 0


def _slices(arguments: list[str]) -> int:
    options, rest = _split(arguments, ("run", "cold"))
    _refuse_rest("slices", rest, ("run", "cold"))
    _need(options, ("run",), "slices --run=<run folder> [--cold=5]")
    from recbole_ext.evaluation.slices import COLD
    from recbole_ext.slices_report import slices_of

    cold = options.get("cold", str(COLD))
    if not cold.isdecimal() or int(cold) < 2:
        raise UserError(f"--cold takes a number of interactions from 2 up, not '{cold}'")
    print(slices_of(Path(options["run"]), int(cold)))
    return 0


def _doctor(arguments: list[str]) -> int:
    _refuse_rest("doctor", arguments, ())
    from recbole_ext.doctor import report

    text, code = report()
    print(text)
    return code


def _need(options: dict[str, Any], names: Sequence[str], usage: str) -> None:
    missing = [f"--{name}" for name in names if not options.get(name)]
    if missing:
        command = usage.split()[0]
        raise UserError(f"{command} needs {' and '.join(missing)}: recbole-ext {usage}")


def _refuse_rest(command: str, rest: Sequence[str], names: Sequence[str]) -> None:
    if rest:
        name = rest[0].partition("=")[0].lstrip("-")
        takes = ", ".join(f"--{one}" for one in names) or "nothing"
        raise UserError(f"{command} takes no '{rest[0]}'{suggest(name, names)}; it takes {takes}")


def _split(arguments: list[str], names: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Take ``names`` out of the arguments, also as ``--name value``; the rest are settings."""
    options: dict[str, str] = {}
    rest: list[str] = []
    queue = list(arguments)
    while queue:
        name, equals, value = queue.pop(0).partition("=")
        name = _SHORT.get(name, name)
        if name in _SPACED and not equals:
            values: list[str] = []
            while (
                queue and not queue[0].startswith("-") and (not values or name == "--config_files")
            ):
                values.append(queue.pop(0))
            if not values:
                raise UserError(f"{name} needs a value: {name}=...")
            value = " ".join(values)
        if name[2:] not in names:
            rest.append(f"{name}={value}" if equals or name in _SPACED else name)
        elif options.get(name[2:], value) != value:
            raise UserError(
                f"{name} is given twice, as '{options[name[2:]]}' and as '{value}'; keep one"
            )
        else:
            options[name[2:]] = value
    return options, rest


def _complain(sentence: str) -> int:
    print(f"recbole-ext: {sentence}", file=sys.stderr)
    return 2

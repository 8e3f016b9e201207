"""The repairs of RecBole 1.2.1 and of the libraries under it; nothing else changes either.

Each repair waits for the import of the module that it mends, asks a feature test whether this
installation needs it, and is then applied once. `recbole-ext doctor` lists the outcome. The
numbers: B is a break on a current stack, U a bug of RecBole on any stack. The functions that do it
are in `_standins/`, by cause.

Import ``recbole_ext`` before ``recbole``: some repairs act while a module is executed, and a
warning tells what can no longer be mended.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from types import ModuleType

from recbole_ext._standins import absent, host, libraries
from recbole_ext._standins.import_hook import ImportHook

DATASET = "recbole.data.dataset.dataset"
RECBOLE_NEW = "RecBole > 1.2.1 that does not need it"


@dataclass(frozen=True)
class Repair:
    """One repair.

    Attributes:
        id: Its number; two repairs may share one.
        title: What is wrong without it.
        versions: The versions that need it.
        remove_when: When it can go.
        modules: The modules that trigger it; ``recbole`` itself is executed before all others.
        needed: The feature test; without one, always.
        after: Mends a module of ``modules`` once it has been executed.
        during: Held while the module is executed.
        late: Of a repair with ``during``: mends a module that was executed before we came.
    """

    id: str
    title: str
    versions: str
    remove_when: str
    modules: tuple[str, ...]
    needed: Callable[[], bool] = lambda: True
    after: Callable[[ModuleType], None] | None = None
    during: Callable[[], AbstractContextManager[None]] | None = None
    late: Callable[[ModuleType], None] | None = None


REPAIRS = [
    Repair(
        "B1, B2",
        "ray 2.6.3, imported for one function, does not import beside setuptools >= 82 or numpy 2",
        "recbole 1.2.1 (every Python >= 3.12 lacks ray 2.6.3)",
        "recbole.quick_start does not import ray",
        ("recbole.quick_start.quick_start",),
        absent.ray_is_not_in_use,
        during=absent.without_ray,
    ),
    Repair(
        "B3",
        "np.float_, np.float and the like are gone",
        "numpy >= 1.24 (np.float), >= 2.0 (np.float_)",
        RECBOLE_NEW,
        ("recbole",),
        libraries.lacks_numpy_aliases,
        libraries.add_numpy_aliases,
    ),
    Repair(
        "B4",
        "torch.load refuses RecBole's checkpoints, which hold a pickled Config",
        "torch >= 2.6",
        "RecBole saves plain data",
        ("recbole",),
        libraries.load_is_restricted,
        libraries.load_recbole_checkpoints,
    ),
    Repair(
        "B5",
        "dok_matrix has no _update (LightGCN, NGCF, NCL, GCMC, SpectralCF, KGIN, MCCLK)",
        "scipy >= 1.13",
        RECBOLE_NEW,
        ("recbole",),
        libraries.lacks_dok_update,
        libraries.add_dok_update,
    ),
    Repair(
        "B6",
        "Series.agg(len) and agg(np.concatenate) get the whole series (token_seq, float_seq)",
        "pandas >= 3",
        RECBOLE_NEW,
        ("recbole",),
        libraries.agg_gets_whole_series,
        libraries.aggregate_elements,
    ),
    Repair(
        "B7",
        "missing values stay missing, silently: fillna(inplace=True) fills a copy",
        "pandas >= 3",
        RECBOLE_NEW,
        (DATASET,),
        libraries.fillna_in_place_is_lost,
        libraries.fill_missing_values,
    ),
    Repair(
        "B8",
        "an empty cell of a *_seq column stops the reading of the file",
        "pandas >= 3",
        RECBOLE_NEW,
        (DATASET,),
        libraries.fillna_in_place_is_lost,
        libraries.read_sequences_filled,
    ),
    Repair(
        "B9",
        "a warning for every column that is handed to torch",
        "pandas >= 3",
        RECBOLE_NEW,
        ("recbole",),
        libraries.fillna_in_place_is_lost,
        libraries.silence_read_only,
    ),
    Repair(
        "B10",
        "KGAT needs dgl, which has no wheel for a current torch: a stand-in where it fails",
        "torch > 2.2",
        "dgl has wheels for current versions of torch",
        tuple(absent.DGL_CALLERS),
        after=absent.in_presence_of("dgl", absent.DGL_CALLERS),
    ),
    Repair(
        "B11",
        "KGIN and MCCLK need torch_scatter, which has no wheels: a stand-in where it fails",
        "any",
        "torch_scatter has wheels on PyPI",
        tuple(absent.SCATTER_CALLERS),
        after=absent.in_presence_of("torch_scatter", absent.SCATTER_CALLERS),
    ),
    Repair(
        "B12",
        "hyperopt 0.2.5, which RecBole pins, imports pkg_resources",
        "setuptools >= 82",
        "RecBole allows hyperopt >= 0.3",
        ("hyperopt.atpe",),
        absent.lacks_pkg_resources,
        during=absent.with_pkg_resources,
    ),
    Repair(
        "B12",
        "exhaustive search gives hyperopt a random state without 'integers'",
        "hyperopt >= 0.2.6",
        RECBOLE_NEW,
        ("recbole.trainer.hyper_tuning",),
        after=absent.give_integers,
    ),
    Repair(
        "B13",
        "training in several processes insists on CUDA",
        "recbole 1.2.1",
        RECBOLE_NEW,
        ("recbole.trainer.trainer",),
        after=host.mend_data_parallel,
    ),
    Repair(
        "B13",
        "ensure_dir fails when two processes start together",
        "recbole 1.2.1",
        RECBOLE_NEW,
        ("recbole.utils.utils",),
        after=host.mend_ensure_dir,
    ),
    Repair(
        "B14",
        "thop imports distutils",
        "Python >= 3.12 without setuptools",
        "thop does not import distutils",
        ("thop.profile",),
        absent.lacks_distutils,
        during=absent.with_distutils,
    ),
    Repair(
        "B15",
        "deprecation warnings in every epoch",
        "torch >= 2.4, pandas >= 3",
        RECBOLE_NEW,
        ("recbole",),
        after=host.silence_deprecations,
    ),
    Repair(
        "B16",
        "torchvision of PyPI is for CUDA: beside a CPU torch its import ends at torchvision::nms",
        "torchvision of PyPI beside a torch without CUDA",
        "torchvision imports where its compiled part does not load",
        ("torchvision.extension",),
        libraries.lacks_vision_operators,
        libraries.declare_vision_operators,
    ),
    Repair(
        "U1",
        "ItemCoverage, GiniIndex, AveragePopularity and TailPercentage fail: .cpu() on a number",
        "recbole 1.2.1",
        RECBOLE_NEW,
        ("recbole.evaluator.collector",),
        after=host.mend_collector,
    ),
    Repair(
        "U2",
        "a first download fails at a barrier, and a broken one leaves half a dataset",
        "recbole 1.2.1",
        RECBOLE_NEW,
        (DATASET,),
        after=host.mend_download,
    ),
    Repair(
        "U7",
        "importing any sequential model switches autograd's anomaly mode on",
        "recbole 1.2.1",
        RECBOLE_NEW,
        ("recbole.model.sequential_recommender.sine",),
        during=host.keep_anomaly_mode,
        late=host.leave_anomaly_mode,
    ),
]
"""All repairs."""

_outcome: dict[Repair, str] = {}
_done: set[tuple[Repair, str]] = set()


def apply() -> None:
    """Get the repairs ready, and mend what has been imported already.

    Calling it again changes nothing.
    RecBole need not be installed.
    """
    if not any(isinstance(finder, ImportHook) for finder in sys.meta_path):
        watched = {name for repair in REPAIRS for name in repair.modules}
        sys.meta_path.insert(0, ImportHook(watched, _repaired))
    for repair in REPAIRS:
        for name in repair.modules:
            if name in sys.modules and (repair, name) not in _done:
                _mend_late(repair, sys.modules[name])


def status() -> list[tuple[Repair, str]]:
    """Return each repair with its outcome.

    ``applied``, ``not needed``, ``waiting``, ``unavailable: why`` or ``failed: why``.
    """
    return [(repair, _outcome.get(repair, "waiting")) for repair in REPAIRS]


def settle() -> list[tuple[Repair, str]]:
    """Import every module that a repair waits for, and return `status`."""
    for repair in REPAIRS:
        for name in repair.modules:
            try:
                importlib.import_module(name)
            except Exception as error:
                # Nothing works without RecBole; hyperopt and thop are optional.
                what = "unavailable" if name.startswith("recbole") else "not needed"
                _outcome.setdefault(repair, f"{what}: {error}")
    return status()


def _mend_late(repair: Repair, module: ModuleType) -> None:
    """Mend a module that was executed before us, or say in a warning that it is too late."""
    if repair.during is None:
        _run(repair, module, repair.after)
    elif repair.late is not None:
        _run(repair, module, repair.late)
    elif _is_needed(repair, module.__name__):
        name = module.__name__
        _record(repair, name, f"unavailable: {name} was imported before recbole_ext")
        warnings.warn(
            f"recbole_ext: repair {repair.id} comes too late, because {name} has been imported "
            "already; import recbole_ext before recbole",
            stacklevel=2,
        )


@contextmanager
def _repaired(module: ModuleType) -> Iterator[None]:
    """Hold while a watched module is executed; mend it then."""
    name = module.__name__
    due = [repair for repair in REPAIRS if name in repair.modules]
    with ExitStack() as stack:
        for repair in due:
            if repair.during is not None and _is_needed(repair, name):
                stack.enter_context(repair.during())
                _record(repair, name, "applied")
        yield
    for repair in due:
        if repair.during is None:
            _run(repair, module, repair.after)


def _run(repair: Repair, module: ModuleType, mend: Callable[[ModuleType], None] | None) -> None:
    if mend is None or not _is_needed(repair, module.__name__):
        return
    try:
        mend(module)
        _record(repair, module.__name__, "applied")
    except Exception as error:  # one lost repair must not stop the others
        _fail(repair, module.__name__, error)


def _is_needed(repair: Repair, name: str) -> bool:
    try:
        needed = repair.needed()
    except Exception as error:
        _fail(repair, name, error)
        return False
    if not needed:
        _record(repair, name, "not needed")
    return needed


def _fail(repair: Repair, name: str, error: Exception) -> None:
    _record(repair, name, f"failed: {type(error).__name__}: {error}")
    message = f"recbole_ext: repair {repair.id} of {name} failed ({error}); run: recbole-ext doctor"
    warnings.warn(message, stacklevel=2)


def _record(repair: Repair, name: str, outcome: str) -> None:
    """Keep the outcome; of several modules the one that says most counts."""
    order = ("not needed", "unavailable", "applied", "failed")
    rank = [word in outcome for word in order].index(True)
    old = _outcome.get(repair)
    if old is None or rank >= [word in old for word in order].index(True):
        _outcome[repair] = outcome
    _done.add((repair, name))

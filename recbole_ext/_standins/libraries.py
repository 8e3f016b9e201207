"""Repairs for what newer numpy, torch, scipy and pandas no longer do (B3 to B9).

And for torchvision (B16), whose wheel on PyPI does not import beside a torch without CUDA.

What is patched in a library as a whole acts only on calls that come from RecBole's own modules.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

from recbole_ext._standins.tools import called_by_recbole, copy_of, replace


def lacks_numpy_aliases() -> bool:
    """Tell whether `np.float` and the like are gone (numpy >= 1.24)."""
    import numpy

    return "float" not in vars(numpy)


def add_numpy_aliases(_: ModuleType) -> None:
    """Do what RecBole's `compatibility_settings` does until it meets a name that numpy 2 lacks."""
    import numpy as np

    aliases = {"bool": np.bool_, "int": np.int_, "float": np.float64, "complex": np.complex128}
    aliases |= {"object": np.object_, "str": np.str_, "long": np.int_, "unicode": np.str_}
    aliases |= {"float_": np.float64, "complex_": np.complex128, "unicode_": np.str_}
    for name, value in aliases.items():
        if name not in vars(np):
            setattr(np, name, value)


class _Probe:
    """An object that only the old, unrestricted `torch.load` reads."""


def load_is_restricted() -> bool:
    """Tell whether `torch.load` refuses pickled objects by default (torch >= 2.6)."""
    import torch

    file = io.BytesIO()
    torch.save(_Probe(), file)
    file.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.load(file)
    except Exception:
        return True
    return False


def load_recbole_checkpoints(_: ModuleType) -> None:
    """Let RecBole read its own checkpoints, which hold its pickled Config.

    Anyone else keeps torch's safe default.
    """
    import torch

    def make(load: Callable[..., Any]) -> Callable[..., Any]:
        def load_as_recbole_expects(*args: Any, **kwargs: Any) -> Any:
            if kwargs.get("weights_only") is None and called_by_recbole():
                kwargs["weights_only"] = False
            return load(*args, **kwargs)

        return load_as_recbole_expects

    replace(torch, "load", make)


def lacks_dok_update() -> bool:
    """Tell whether scipy's `dok_matrix` is no longer a dict (scipy >= 1.13)."""
    from scipy.sparse import dok_matrix

    return not hasattr(dok_matrix, "_update")


def add_dok_update(_: ModuleType) -> None:
    """Give `dok_matrix` the method with which RecBole's graph models fill it."""
    from scipy.sparse import dok_matrix

    dok_matrix._update = lambda self, values: self._dict.update(values)


def agg_gets_whole_series() -> bool:
    """Tell whether `Series.agg(len)` is the length of the series (pandas >= 3), not of each row."""
    import pandas as pd

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return not isinstance(pd.Series([[1, 2], [3]]).agg(len), pd.Series)


def aggregate_elements(_: ModuleType) -> None:
    """Let RecBole's two uses of `Series.agg` on sequence columns work element by element again."""
    import numpy as np
    import pandas as pd

    def make(agg: Callable[..., Any]) -> Callable[..., Any]:
        def agg_as_recbole_expects(self: Any, func: Any = None, *args: Any, **kwargs: Any) -> Any:
            if func is len and called_by_recbole():
                return self.map(len)
            if func is np.concatenate and called_by_recbole():
                return np.concatenate(self.tolist())
            return agg(self, func, *args, **kwargs)

        return agg_as_recbole_expects

    replace(pd.Series, "agg", make)


def fillna_in_place_is_lost() -> bool:
    """Tell whether `frame[column].fillna(..., inplace=True)` changes a copy only (pandas >= 3)."""
    import pandas as pd

    frame = pd.DataFrame({"a": [1.0, None]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frame["a"].fillna(0.0, inplace=True)
    return bool(frame["a"].isna().any())


def _silence_lost_assignments() -> None:
    """Hide what pandas says of the assignments that B7 and B8 make up for."""
    from pandas.errors import ChainedAssignmentError  # type: ignore[attr-defined]

    warnings.filterwarnings("ignore", category=ChainedAssignmentError, module=r"recbole\.")


def _fill_nan(dataset: Any) -> None:
    """Take the place of `Dataset._fill_nan`: tokens get 0 ([PAD]), floats their mean, lists []."""
    import numpy as np
    from recbole.utils import FeatureType

    for name in dataset.feat_name_list:
        feat = getattr(dataset, name)
        for field in feat:
            ftype = dataset.field2type[field]
            if ftype == FeatureType.TOKEN:
                feat[field] = feat[field].fillna(0)
            elif ftype == FeatureType.FLOAT:
                feat[field] = feat[field].fillna(feat[field].mean())
            else:
                dtype = np.int64 if ftype == FeatureType.TOKEN_SEQ else np.float64
                empty = np.array([], dtype=dtype)
                feat[field] = [empty if isinstance(row, float) else row for row in feat[field]]


def fill_missing_values(module: ModuleType) -> None:
    """Fill missing values by assignment: else they reach the model as NaN and as -2**63."""
    _silence_lost_assignments()
    replace(module.Dataset, "_fill_nan", lambda original: lambda self: _fill_nan(self))


def read_sequences_filled(module: ModuleType) -> None:
    """Read empty cells of `*_seq` columns as the empty string, which RecBole then splits."""
    _silence_lost_assignments()
    import pandas as pd

    def read_csv(*args: Any, **kwargs: Any) -> Any:
        frame = pd.read_csv(*args, **kwargs)
        for column in frame.columns:
            if str(column).endswith("_seq"):
                frame[column] = frame[column].fillna("")
        return frame

    module.pd = copy_of(pd, read_csv=read_csv)  # type: ignore[attr-defined]


def silence_read_only(_: ModuleType) -> None:
    """Hide torch's warning about read-only tables: RecBole never writes into these tensors."""
    message = "The given NumPy array is not writ"
    warnings.filterwarnings("ignore", message=message, module=r"recbole\.")


def lacks_vision_operators() -> bool:
    """Tell whether torchvision's compiled part, which declares its operators, did not load."""
    import torch

    return not hasattr(torch.ops.torchvision, "nms")


def declare_vision_operators(module: ModuleType) -> None:
    """Declare the two operators at which the import of torchvision ends when nobody has.

    That is enough for all that does not call them (transforms, models).
    """
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    module._recbole_ext_operators = library  # type: ignore[attr-defined]  # they vanish with it

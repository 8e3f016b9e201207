"""RecBole's datasets, loaded and split with array operations: the same result, sooner.

What is here overrides single steps of RecBole's ``Dataset`` and says for which input; other input
is left to RecBole's own step, and so are the complaints.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from threading import RLock
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pandas.api.types import union_categoricals
from recbole.data.dataset import dataset as recbole_dataset
from recbole.data.interaction import Interaction
from recbole.utils import FeatureType

from recbole_ext._standins.tools import copy_of
from recbole_ext.data.reading import read_plain
from recbole_ext.data.rows import Rows

if TYPE_CHECKING:
    from recbole.data.dataset import Dataset as Host
else:
    Host = object


LOADING = RLock()
"""Held while something of RecBole's is replaced for the sake of one dataset."""


class FastDataset(Host):
    """Mixin that stands before ``Dataset`` or one of its subclasses in the bases of a class."""

    inter_feat: Any

    def _load_feat(self, filepath: str, source: Any) -> pd.DataFrame | None:
        """Read a plain file by :func:`recbole_ext.data.reading.read_plain`."""
        with LOADING:
            pandas = recbole_dataset.pd

            def read_csv(path: str, **options: Any) -> pd.DataFrame:
                frame = read_plain(path, **options)
                if frame is not None:
                    return frame
                self.logger.info(
                    "%s is read by RecBole, which takes longer: it has quotes, carriage returns, "
                    "lines of other lengths, or text among numbers",
                    path,
                )
                return pandas.read_csv(path, **options)

            recbole_dataset.pd = copy_of(pandas, read_csv=read_csv)
            try:
                return super()._load_feat(filepath, source)
            finally:
                recbole_dataset.pd = pandas

    def _filter_by_inter_num(self) -> None:
        """Count and drop in arrays; RecBole says which users and items have too few or too many."""
        if self.uid_field is None or self.iid_field is None:
            return
        while self._drop_by_inter_num():
            pass

    def _drop_by_inter_num(self) -> bool:
        """Drop what is illegal by the numbers of now; say whether there was anything."""
        sides = {self.uid_field: "user", self.iid_field: "item"}
        banned = {field: self._banned(field, name) for field, name in sides.items()}
        if not any(banned.values()):
            return False
        keep = np.ones(len(self.inter_feat), dtype=bool)  # [n]
        for field, name in sides.items():
            keep &= ~self.inter_feat[field].isin(banned[field]).to_numpy()
            feat = getattr(self, f"{name}_feat")
            if feat is not None:
                feat.drop(feat.index[feat[field].isin(banned[field])], inplace=True)
        self.inter_feat.drop(self.inter_feat.index[~keep], inplace=True)
        return True

    def _banned(self, field: str, name: str) -> set[str]:
        intervals = self._parse_intervals_str(self.config[f"{name}_inter_num_interval"])
        inter_num: Counter[str] = Counter()
        if intervals:
            codes, ids = pd.factorize(self.inter_feat[field])  # [n], [ids]
            inter_num.update(dict(zip(ids, np.bincount(codes).tolist(), strict=True)))
        return self._get_illegal_ids_by_inter_num(
            field=field,
            feat=getattr(self, f"{name}_feat"),
            inter_num=inter_num,
            inter_interval=intervals,
        )

    def _concat_remaped_tokens(self, remap_list: list[Any]) -> tuple[Any, np.ndarray]:
        """Keep categorical columns so: RecBole numbers tokens then, and not cells."""
        if any(ftype != FeatureType.TOKEN for _, _, ftype in remap_list):
            return super()._concat_remaped_tokens(remap_list)
        columns = [feat[field].astype("category").values for feat, field, _ in remap_list]
        if len({column.categories.dtype for column in columns}) != 1:  # one has no token at all
            return super()._concat_remaped_tokens(remap_list)
        return union_categoricals(columns), np.cumsum([len(column) for column in columns])[:-1]

    def _remap_ID_all(self) -> None:
        """Number the tokens; columns that RecBole leaves as tokens get its dtype back.

        Those are columns of ``additional_feat_suffix`` files that are no alias.
        """
        super()._remap_ID_all()
        text = pd.Series(dtype=str).dtype  # that of read_csv, by pandas' version
        for feat in (getattr(self, name) for name in self.feat_name_list):
            for field in feat.columns[feat.dtypes == "category"]:
                feat[field] = feat[field].astype(text)

    def _normalize(self) -> None:
        """Scale float columns by their extremes; a column that has but one value is RecBole's."""
        fields = self.config["normalize_field"] or (
            self.float_like_fields if self.config["normalize_all"] else []
        )
        if not all(self.field2type.get(field) == FeatureType.FLOAT for field in fields) or (
            self.config["normalize_field"] is not None and self.config["normalize_all"] is True
        ):
            return super()._normalize()
        fields = list(dict.fromkeys(fields))
        columns = [(feat, field) for field in fields for feat in self.field2feats(field)]
        values = [feat[field].to_numpy() for feat, field in columns]
        ends = [(column.min(), column.max()) for column in values]
        if not all(low < high for low, high in ends):
            return super()._normalize()
        for (feat, field), column, (low, high) in zip(columns, values, ends, strict=True):
            feat[field] = (column - low) / (high - low)
        return None

    def _change_feat_format(self) -> None:
        """Make tensors of the columns, in rows that are indexed quickly."""
        super()._change_feat_format()
        for name in self.feat_name_list:
            feat = getattr(self, name)
            if type(feat) is Interaction:
                setattr(self, name, Rows(feat.interaction))

    def _grouped_index(self, group_by_list: np.ndarray) -> list[np.ndarray]:
        """Return the places of each value, in the order in which the values first appear."""
        codes, values = pd.factorize(np.asarray(group_by_list))  # [n], [values]
        codes = codes.astype(np.min_scalar_type(len(values)))  # 16 bits are sorted by their digits
        order = np.argsort(codes, kind="stable")  # [n]
        end = np.bincount(codes, minlength=len(values)).cumsum().tolist()  # [values]
        return [order[a:b] for a, b in zip([0, *end[:-1]], end, strict=True)] if end else []

    def _split_index_by_leave_one_out(
        self, grouped_index: Iterable[np.ndarray], leave_one_num: int
    ) -> list[Any]:
        """Return the places of the training rows, and of each of the last ``leave_one_num``."""
        groups = list(grouped_index)
        if not groups:
            return [[] for _ in range(leave_one_num + 1)]
        index, size = np.concatenate(groups), np.array([len(group) for group in groups])  # [n], [G]
        last, is_train = size.cumsum() - 1, np.ones(len(index), dtype=bool)  # [G], [n]
        parts = []
        for back in range(leave_one_num):
            held = (last - back)[size > back + 1]  # a group's first row is for training
            parts.append(index[held])
            is_train[held] = False
        return [index[is_train], *reversed(parts)]

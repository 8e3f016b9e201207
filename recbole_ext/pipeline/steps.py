"""Steps of a pipeline: each has a folder named by all that goes into it, and is done once.

Another setting is another folder, so nothing is overwritten; what was made with the same inputs is
found again, and a step that was broken off is done anew or goes on.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recbole_ext.data.feature_origin import file_digest
from recbole_ext.pipeline.folders import make as make_folder
from recbole_ext.run_folder import plain, write_text

_DIGITS = 10
INPUTS = "inputs"


@dataclass
class Steps:
    """The steps of one pipeline, in their order.

    Attributes:
        folder: Where their folders lie.
        done: Step -> its folder, and whether it was found finished.
    """

    folder: Path
    done: dict[str, dict[str, Any]] = field(default_factory=dict)

    def do(
        self,
        name: str,
        inputs: Mapping[str, Any],
        last: str,
        make: Callable[[Path], object],
    ) -> Path:
        """Do a step unless it is finished.

        Args:
            name: Of the step.
            inputs: All that its result depends on.
            last: The file that the step writes last, by which it is finished.
            make: Fills the step's folder, which need not be there; what an earlier attempt left is.

        Returns:
            The step's folder.
        """
        text = json.dumps(plain(inputs), sort_keys=True, indent=2)
        digest = hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]
        place = self.folder / f"{name}-{digest}"
        is_found = (place / last).is_file()
        began = time.perf_counter()
        if not is_found:
            make(place)
        # for people: what the digits of a folder's name stand for
        write_text(make_folder(self.folder / INPUTS) / f"{place.name}.json", text + "\n")
        seconds = time.perf_counter() - began
        self.done[name] = {"folder": place.name, "is_found": is_found, "seconds": seconds}
        how = "finished before, kept" if is_found else f"done in {seconds:.0f} seconds"
        print(f"{name}: {how}; {place}", flush=True)
        return place


_ELSEWHERE = {"cache_dir", "features_dir"}
"""Settings that name a place where others write too; what counts of it is named by others."""


def contents_of(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return setting -> a digest of the file or folder that it names, of those that name one.

    Of a run it is that of its weights; of another folder that of its files' names, sizes and times,
    for to read all would take minutes.
    """
    named = {
        key: Path(value)
        for key, value in settings.items()
        if isinstance(value, str) and value and key not in _ELSEWHERE
    }
    return {key: _digest(path) for key, path in named.items() if path.exists()}


def _digest(path: Path) -> str:
    if (path / "best.pt").is_file():
        return file_digest(path / "best.pt")
    if path.is_file():
        return file_digest(path)
    known = [(one.name, one.stat().st_size, one.stat().st_mtime_ns) for one in path.iterdir()]
    return hashlib.sha256(repr(sorted(known)).encode()).hexdigest()

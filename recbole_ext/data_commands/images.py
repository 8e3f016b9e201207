"""``recbole-ext images``: downloads the pictures whose addresses a conversion found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from recbole_ext.arguments import call_or_help
from recbole_ext.feature_commands.options import at_least, at_most
from recbole_ext.features.fetching import Fetcher
from recbole_ext.features.pace import Pace
from recbole_ext.features.pictures import PICTURES, download, problems_of, read_links
from recbole_ext.types import UserError

COMMAND = "recbole-ext images"
MOST_WORKERS = 64


@dataclass(frozen=True)
class Manners:
    """How servers are asked.

    Attributes:
        requests_per_second: Limit, tries counted.
        workers: Requests at a time.
        retries: Tries after the first, where the server is busy or does not answer.
        max_mib: A larger picture is refused.
        retry_gone: Ask again for pictures that were not there (404, 410) last time.
        local_servers: Ask servers of one's own network too, which a list may name by mischief.
    """

    requests_per_second: float = 5.0
    workers: int = 8
    retries: int = 3
    max_mib: float = 20.0
    retry_gone: bool = False
    local_servers: bool = False

    def __post_init__(self) -> None:
        at_least(1, workers=self.workers)
        at_most(MOST_WORKERS, workers=self.workers)
        at_least(0, retries=self.retries)
        for key in ("requests_per_second", "max_mib"):
            if not 0 < getattr(self, key) < float("inf"):
                raise UserError(f"--{key} takes a number above 0, not {getattr(self, key)}")


def download_images(links: str, out: str, manners: Manners, pictures: int = 1) -> None:
    """Download pictures; what is there stays, and what failed is tried again.

    Args:
        links: CSV item_id,url, as a conversion writes it (images.csv), or the folder that has it.
        out: Folder of the pictures.
        manners: How.
        pictures: So many of each item, the first ones.
    """
    at_least(1, pictures=pictures)
    if not out:
        raise UserError("--out is empty; name a folder for the pictures")
    wanted, folder = read_links(Path(links), pictures), Path(out)
    pace = Pace(requests_per_minute=60 * manners.requests_per_second)
    largest = int(manners.max_mib * 2**20)
    fetch = Fetcher(pace, largest, manners.retries, manners.local_servers)
    try:
        n_new = download(wanted, folder, fetch, manners.workers, manners.retry_gone)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("what came is kept: the same command goes on") from None
    n = sum(bool(link.file) for link in wanted)
    print(f"{folder / PICTURES}: {n:,} of {len(wanted):,} pictures, {n_new:,} of them new")
    for problem, count in problems_of(wanted)[:5]:
        print(f"  {count:,} without: {problem}")
    if n:
        print(f"encode them: recbole-ext features image --images={folder / PICTURES} --dataset=...")


def run(arguments: list[str]) -> int:
    """Do ``recbole-ext images --key=value ...``."""
    return call_or_help(download_images, arguments, COMMAND)

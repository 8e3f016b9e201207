"""U2: a first download works in a single process, and a failed one leaves nothing behind."""

from __future__ import annotations

import io
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from compat_help import INTER, SIX, config, write

from recbole_ext._standins import download
from recbole_ext.types import UserError


def archive() -> bytes:
    """A dataset as RecBole's server has it: atomic files under the archive's own name."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as content:
        content.writestr("Original.inter", "\n".join([INTER, *SIX]) + "\n")
        content.writestr("Original.item", "item_id:token\ni1\ni2\ni3\ni4\n")
    return file.getvalue()


class Handler(BaseHTTPRequestHandler):
    """Serves the archive: broken off, not a zip, said to have 3 GiB, or not at all, by the path."""

    def do_GET(self) -> None:  # noqa: N802
        kind = self.path.split("/")[1]
        if kind not in ("good", "short", "broken", "huge"):
            self.send_error(404)
            return
        body = b"no zip file" if kind == "broken" else archive()
        self.send_response(200)
        claimed = {"huge": 3 << 30, "short": len(body) + 100}.get(kind, len(body))
        self.send_header("Content-Length", str(claimed))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # noqa: ANN201
    """Return ``load(url)``: let RecBole make the dataset, which is only to be had at ``url``."""
    from recbole.data import create_dataset
    from recbole.data.dataset.dataset import Dataset

    def load(url: str):  # noqa: ANN202
        monkeypatch.setattr(Dataset, "_get_download_url", lambda self, *args, **kwargs: url)
        return create_dataset(config(tmp_path))

    return load


def test_a_first_run_downloads_and_goes_on(server: str, tmp_path: Path, load) -> None:
    assert load(f"{server}/good/Original.zip").inter_num == len(SIX)
    assert sorted(path.name for path in (tmp_path / "hand").iterdir()) == [
        "hand.inter",
        "hand.item",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["hand"]


@pytest.mark.parametrize(
    "url", ["{}/missing/x.zip", "{}/short/x.zip", "{}/broken/x.zip", "http://127.0.0.1:9/x.zip"]
)
def test_a_failed_download_leaves_nothing_and_says_where_and_what_to_do(
    url: str, server: str, tmp_path: Path, load
) -> None:
    url = url.format(server)
    with pytest.raises(UserError) as caught:
        load(url)
    message = str(caught.value)
    assert (
        url in message and str(tmp_path / "hand" / "hand.inter") in message and "\n" not in message
    )
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_data_that_was_never_there_is_named_and_not_left(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recbole.data import create_dataset
    from recbole.data.dataset.dataset import Dataset

    url = f"{server}/missing/x.zip"
    monkeypatch.setattr(Dataset, "_get_download_url", lambda self, *args, **kwargs: url)
    nowhere = tmp_path / "shared" / "dat"
    with pytest.raises(UserError, match=f"there is no folder {nowhere.parent} .data_path., and it"):
        create_dataset(config(nowhere))
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_download_leaves_nothing(
    server: str, tmp_path: Path, load, monkeypatch
) -> None:
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(zipfile.ZipFile, "extractall", interrupt)
    with pytest.raises(KeyboardInterrupt):
        load(f"{server}/good/Original.zip")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("answer", ["n", EOFError()])
def test_a_large_download_is_asked_about_first(
    answer, server: str, tmp_path: Path, load, monkeypatch
) -> None:
    def reply(prompt: str) -> str:
        assert "3.00 GiB" in prompt
        if isinstance(answer, str):
            return answer
        raise answer

    monkeypatch.setattr("builtins.input", reply)
    with pytest.raises(UserError, match="huge/x.zip"):
        load(f"{server}/huge/x.zip")
    assert list(tmp_path.iterdir()) == []


def test_another_run_that_was_faster_wins(server: str, tmp_path: Path, load, monkeypatch) -> None:
    get = download._get

    def slow(*args: object) -> None:
        get(*args)  # type: ignore[arg-type]
        write(tmp_path, inter=[INTER, *SIX[:5]])

    monkeypatch.setattr(download, "_get", slow)
    assert load(f"{server}/good/Original.zip").inter_num == 5
    assert [path.name for path in tmp_path.iterdir()] == ["hand"]


def test_an_unknown_dataset_is_one_sentence(tmp_path: Path) -> None:
    from recbole.data import create_dataset

    with pytest.raises(UserError, match=f"'hand' was not found.*{tmp_path}.*data_path"):
        create_dataset(config(tmp_path))
    assert list(tmp_path.iterdir()) == []

"""Names of models: what is refused at once, and what a library's complaint is made of."""

from __future__ import annotations

import logging
import os
import socket

import pytest

from recbole_ext.features.hub import check_model_name, near_folder, quiet_hub, reason
from recbole_ext.types import UserError


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "bert").mkdir(parents=True)
    (tmp_path / "taken").write_text("")


@pytest.mark.parametrize("name", ["bert", "google/bert", "./models/bert", "models/bert", "models/"])
def test_ids_and_folders_pass(name):
    check_model_name("--encoder", name)


@pytest.mark.parametrize("name", ["./bert", "../bert", "/bert", "~/bert", "a/b/c", "bert/"])
def test_a_path_to_nothing_is_refused(name):
    with pytest.raises(UserError, match=f"--encoder: '{name}' is no folder"):
        check_model_name("--encoder", name)


def test_a_file_and_a_near_folder_are_named():
    with pytest.raises(UserError, match="'./taken' is a file"):
        check_model_name("--encoder", "./taken")
    assert near_folder("./models/brt") == "; did you mean 'models/bert'?"
    assert near_folder("model") == "; did you mean 'models'?"
    assert near_folder("nowhere/x") == ""


def test_an_address_is_whole_or_not_there():
    url = "https://huggingface.co/" + "x" * 40
    said = reason(OSError("word\n" * 50 + url + " and " + url))
    assert len(said) <= 300 and "\n" not in said
    assert all(word in ("word", url, "and", "...") for word in said.split())


@pytest.fixture
def asked(monkeypatch):
    """Hosts that were looked up; none is found."""
    hosts = []

    def look_up(host, port):
        hosts.append(host)
        raise socket.gaierror("no such host")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr("recbole_ext.features.hub.getproxies", dict)
    monkeypatch.setattr(os, "environ", {})
    level = logging.getLogger("huggingface_hub").level
    yield hosts
    logging.getLogger("huggingface_hub").setLevel(level)


def test_a_hub_that_leads_nowhere_is_not_tried(asked):
    quiet_hub()
    assert asked == ["huggingface.co"] and os.environ["HF_HUB_OFFLINE"] == "1"
    assert not logging.getLogger("huggingface_hub").isEnabledFor(logging.WARNING)


def test_what_was_said_of_the_hub_stays(asked, monkeypatch):
    os.environ["HF_HUB_OFFLINE"] = "0"
    quiet_hub()
    assert os.environ["HF_HUB_OFFLINE"] == "0" and not asked
    del os.environ["HF_HUB_OFFLINE"]
    monkeypatch.setattr("recbole_ext.features.hub.getproxies", lambda: {"https": "x"})
    quiet_hub()  # a proxy knows names that this machine does not
    assert "HF_HUB_OFFLINE" not in os.environ

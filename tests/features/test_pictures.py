"""Downloading pictures, from a server on this machine."""

from __future__ import annotations

import csv
import logging
import time

import pytest

from recbole_ext.cli import main
from recbole_ext.features import fetching
from recbole_ext.features.fetching import Fetcher, Refused
from recbole_ext.features.images import open_image, read_images
from recbole_ext.features.pace import Pace
from recbole_ext.features.pictures import download, problems_of, read_links
from recbole_ext.types import UserError
from tests.features.picture_server import picture, serving_pictures


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with serving_pictures() as found:
        yield found


@pytest.fixture
def fetch(clock):
    pace = Pace(clock=clock, sleep=clock.sleep)
    return Fetcher(pace, max_bytes=5000, max_retries=2, local_servers=True)


def links_file(place, *rows):
    path = place / "images.csv"
    path.write_text("item_id,url\n" + "".join(f"{token},{url}\n" for token, url in rows))
    return path


def table(folder):
    with open(folder / "pictures.csv", encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_pictures_come_and_features_read_them(server, fetch, tmp_path):
    one, two = picture(), picture("PNG", colour="blue")
    rows = [
        ("B1", server.put("/1.jpg", one)),
        ("B1", server.put("/1b.jpg", picture(size=(9, 9)))),
        (
            "a/b \u00fc",
            server.put("/2%20%C3%BC.png", two, "image/png").replace("%20%C3%BC", " \u00fc"),
        ),
        ("B3", server.url + "/none.jpg"),
    ]
    links, out = links_file(tmp_path, *rows), tmp_path / "out"
    assert download(read_links(links, 1), out, fetch) == 2
    found = read_images(out / "pictures.csv")
    assert list(found) == ["B1", "a/b \u00fc", "B3"] and found["B3"] is None
    assert [path.read_bytes() for path in (*found["B1"], *found["a/b \u00fc"])] == [one, two]
    assert found["a/b \u00fc"][0].suffix == ".png" and open_image(found["B1"][0]).size == (4, 3)
    assert download(read_links(links, 2), out, fetch) == 1
    assert [open_image(path).size for path in read_images(out / "pictures.csv")["B1"]] == [
        (4, 3),
        (9, 9),
    ]
    assert server.asked["/1.jpg"] == 1


def test_only_what_failed_is_asked_for_again_and_what_is_gone_only_on_demand(
    server, fetch, tmp_path
):
    urls = {name: server.url + f"/{name}" for name in ("good", "gone", "busy", "html")}
    server.put("/good", picture())
    server.answers["/gone"] = (410, {}, b"")
    server.answers["/busy"] = (500, {}, b"")
    server.put("/html", b"<html>", "text/html")
    links = read_links(links_file(tmp_path, *urls.items()), 1)
    assert download(links, tmp_path / "out", fetch) == 1
    assert [(row["item_id"], row["problem"], row["gone"]) for row in table(tmp_path / "out")] == [
        ("good", "", ""),
        ("gone", "410 Gone", "yes"),
        ("busy", "500 Internal Server Error, 3 times", ""),
        ("html", "text/html, no picture", ""),
    ]
    assert problems_of(links)[0][1] == 1 and server.asked["/busy"] == 3
    for name in ("busy", "html", "gone"):
        server.put(f"/{name}", picture())
    again = read_links(tmp_path / "images.csv", 1)
    assert download(again, tmp_path / "out", fetch) == 2
    assert server.asked == {"/good": 1, "/gone": 1, "/busy": 4, "/html": 2}
    assert [row["problem"] for row in table(tmp_path / "out")] == ["", "410 Gone", "", ""]
    last = read_links(tmp_path / "images.csv", 1)
    assert download(last, tmp_path / "out", fetch, retry_gone=True) == 1
    assert all(row["file"] for row in table(tmp_path / "out"))


def refused(fetch, url):
    with pytest.raises(Refused) as caught:
        fetch(url)
    return str(caught.value)


def test_what_is_no_picture_is_refused(server, fetch):
    blank = b"GIF89a\x01\x00\x01\x00\x80\x00\x00" + b"\0" * 30
    assert refused(fetch, server.put("/a", b"")).startswith("no JPEG, PNG, GIF, WEBP or BMP")
    assert refused(fetch, server.put("/b", b"<html>")).startswith("no JPEG, PNG, GIF, WEBP or BMP")
    assert refused(fetch, server.put("/c", blank, "image/gif")) == "a blank of one pixel"
    assert refused(fetch, server.put("/d", picture(), "text/plain")) == "text/plain, no picture"
    large = picture("BMP", (90, 90))
    assert refused(fetch, server.put("/e", large, "image/bmp")) == "larger than 0.00476837 MiB"
    unsaid = {"Content-Length": ""}  # to the end of the connection
    assert refused(fetch, server.put("/f", large, "image/bmp", **unsaid)).startswith("larger than")
    assert fetch(server.put("/g", picture("GIF"), "application/octet-stream")).suffix == ".gif"
    assert fetch(server.put("/h", picture("WEBP"), "image/jpeg")).suffix == ".webp"
    assert fetch(server.put("/i", picture("PNG"), "binary/octet-stream")).suffix == ".png"  # S3
    assert all(n == 1 for n in server.asked.values())


def test_addresses_and_redirects_lead_to_http_alone(server, fetch, tmp_path):
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(picture())
    for url in (
        f"file://{secret}",
        "ftp://x/a.jpg",
        "/a.jpg",
        "http://[::1/a",
        "data:image/png,x",
        "http://a:b/c",
    ):
        assert refused(fetch, url) == "no address that begins with http:// or https://"
    for number, place in enumerate((f"file://{secret}", "ftp://127.0.0.1:1/a.jpg", "data:,x")):
        server.answers[f"/{number}"] = (302, {"Location": place}, b"")
        assert "no answer" not in refused(fetch, f"{server.url}/{number}")
    server.put("/good", picture())
    server.answers["/moved"] = (301, {"Location": "/good"}, b"")
    assert fetch(f"{server.url}/moved").suffix == ".jpg"
    server.answers["/loop"] = (302, {"Location": "/loop"}, b"")
    assert "infinite loop" in refused(fetch, f"{server.url}/loop")


def test_servers_of_ones_own_network_are_asked_only_on_demand(server, clock):
    """A list of addresses, or a redirect, is written by others."""
    address = server.put("/a", picture())
    fetch = Fetcher(Pace(clock=clock, sleep=clock.sleep), 5000)
    port = server.url.rpartition(":")[2]
    for one in (address, address.replace("127.0.0.1", "localhost")):
        assert refused(fetch, one) == "a server of one's own network (127.0.0.1)"
    assert refused(fetch, f"https://127.0.0.1:{port}/a") == refused(fetch, address)
    assert not server.asked


def test_through_a_proxy_the_proxy_may_be_of_ones_own_network(server, clock, monkeypatch):
    monkeypatch.delenv("no_proxy")
    monkeypatch.setenv("http_proxy", server.url)
    server.answers["http://pictures.invalid/a"] = (200, {"Content-Type": "image/png"}, picture())
    fetch = Fetcher(Pace(clock=clock, sleep=clock.sleep), 5000)
    assert fetch("http://pictures.invalid/a").suffix == ".jpg"


def test_a_server_that_sends_a_byte_now_and_then_is_given_up(server, fetch, monkeypatch):
    address = server.put("/a", picture())
    monkeypatch.setattr(fetching, "LONGEST_ANSWER", -1.0)
    assert refused(fetch, address) == "it takes longer than -1 s" and server.asked["/a"] == 1


def test_ctrl_c_does_not_wait_for_those_who_wait(server, tmp_path):
    """A worker that a server has asked to wait would go on, and hold the end up for minutes."""
    server.answers["/busy"] = (429, {"Retry-After": "5"}, b"")
    links = read_links(links_file(tmp_path, ("B1", server.url + "/busy"), ("B2", "stop")), 1)

    class Interrupted(Fetcher):
        def __call__(self, url):
            if url != "stop":
                return super().__call__(url)
            while not server.asked["/busy"]:
                time.sleep(0.01)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(links, tmp_path / "out", Interrupted(Pace(), 5000, local_servers=True), 2)
    assert server.asked["/busy"] == 1 and len(table(tmp_path / "out")) == 2


def test_a_server_that_is_busy_holds_everybody_and_a_broken_one_only_its_own(
    server, fetch, monkeypatch, caplog
):
    waits = []
    monkeypatch.setattr(fetch.pace, "hold", lambda seconds: waits.append(("all", seconds)))
    monkeypatch.setattr(fetch.pace, "rest", lambda seconds: waits.append(("one", seconds)))
    caplog.set_level(logging.INFO)
    good = (200, {"Content-Type": "image/jpeg"}, picture())
    server.answers["/busy"] = [(429, {"Retry-After": "7"}, b""), (503, {}, b""), good]
    fetch(f"{server.url}/busy")
    assert waits[0] == ("all", 7.0) and waits[1][0] == "all" and 1 <= waits[1][1] <= 2
    cut = (200, {**good[1], "Content-Length": "4999"}, b"\xff\xd8\xff")
    server.answers["/broken"] = [(500, {}, b""), cut, good]
    fetch(f"{server.url}/broken")
    assert [who for who, _ in waits[2:]] == ["one", "one"]
    levels = [record.levelname for record in caplog.records]
    assert levels == ["WARNING", "WARNING", "INFO", "INFO"]  # few lines where many are broken
    server.answers["/day"] = (429, {"Retry-After": "86400"}, b"")
    assert "asks to wait 86400 s" in refused(fetch, f"{server.url}/day")


def test_the_limit_holds_for_all_workers(server, clock, tmp_path):
    rows = [(f"B{i}", server.put(f"/{i}", picture())) for i in range(12)]
    pace = Pace(60 * 4, clock=clock, sleep=clock.sleep)
    fetch = Fetcher(pace, 5000, local_servers=True)
    began = clock.now
    assert download(read_links(links_file(tmp_path, *rows), 1), tmp_path / "out", fetch, 1) == 12
    assert clock.now - began == pytest.approx(11 / 4)


def test_what_a_killed_call_left_is_known_without_its_table(server, fetch, tmp_path):
    rows = [(f"B{i}", server.put(f"/{i}", picture())) for i in range(6)]
    path, out = links_file(tmp_path, *rows), tmp_path / "out"
    download(read_links(path, 1)[:3], out, fetch)
    (out / "pictures.csv").unlink()  # as if killed before it was written
    (out / ".B3-x.jpg.123.tmp").write_bytes(b"half")
    assert download(read_links(path, 1), out, fetch) == 3
    assert all(n == 1 for n in server.asked.values()) and len(server.asked) == 6
    assert not list(out.glob("*.tmp")) and not list(out.glob(".*.tmp"))


def test_the_command(server, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    links_file(tmp_path, ("B1", server.put("/1.jpg", picture())), ("B2", server.url + "/2.jpg"))
    fast = ["--requests_per_second=1000", "--local_servers"]
    assert main(["images", "--links=.", "--out=pictures", *fast]) == 0
    said = capsys.readouterr().out
    assert "pictures/pictures.csv: 1 of 2 pictures, 1 of them new\n  1 without: 404" in said
    assert "recbole-ext features image --images=pictures/pictures.csv" in said
    assert main(["images", "--help"]) == 0
    assert "--requests_per_second Limit, tries counted. (default 5.0)" in capsys.readouterr().out


def test_ctrl_c_keeps_what_came(server, tmp_path, capsys, monkeypatch):
    """The second save is the one at the end: the table knows what came before."""
    monkeypatch.chdir(tmp_path)
    rows = [(f"B{i}", server.put(f"/{i}", picture())) for i in range(3)]
    links_file(tmp_path, *rows)
    fetch, asked = Fetcher.__call__, []

    def interrupted(self, url):
        asked.append(url)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return fetch(self, url)

    monkeypatch.setattr(Fetcher, "__call__", interrupted)
    arguments = ["images", "--links=.", "--out=out", "--workers=1", "--requests_per_second=1000"]
    arguments.append("--local_servers")
    assert main(arguments) == 130
    assert "interrupted; what came is kept: the same command goes on" in capsys.readouterr().err
    assert [bool(row["file"]) for row in table(tmp_path / "out")] == [True, True, False]
    assert main(arguments) == 0 and len(asked) == 4
    assert all(row["file"] for row in table(tmp_path / "out"))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "cannot read .*images.csv: No such file or directory; name a conversion's"),
        ("B1,http://x\nB2,http://y\n", "first line must name two columns, as in item_id,url"),
        ("item_id\n", "first line must name two columns, as in item_id,url"),
        ("item_id,url\n", "has no row below its first line"),
        ("item_id,url\nB1,http://x\nB2\n", "line 3: no token and address"),
        ("item_id,url\nB1, \n", "line 2: no token and address"),
    ],
)
def test_wrong_lists_are_one_sentence(text, sentence, tmp_path):
    path = tmp_path / "images.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=sentence):
        read_links(path, 1)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--links=x"], "recbole-ext images needs --out=...; see recbole-ext images --help"),
        (["--links=x", "--out=o", "--workers=0"], "--workers takes a number from 1, not 0"),
        (["--links=x", "--out=o", "--requests_per_second=0"], "--requests_per_second takes a numb"),
        (["--links=x", "--out=o", "--max_mib=-1"], "--max_mib takes a number above 0, not -1.0"),
        (["--links=x", "--out="], "--out is empty"),
        (["--links=i.csv", "--out=i.csv"], "--out: cannot make i.csv: File exists"),
    ],
)
def test_wrong_options_are_one_sentence(arguments, sentence, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "i.csv").write_text("item_id,url\nB1,http://127.0.0.1:9/x\n")
    assert main(["images", *arguments]) == 2
    assert sentence in capsys.readouterr().err


def test_a_damaged_table_says_what_to_do(tmp_path, fetch):
    (tmp_path / "pictures.csv").write_text("a,b\n1,2\n")
    links = read_links(links_file(tmp_path, ("B1", "http://127.0.0.1:9/x")), 1)
    with pytest.raises(UserError, match="cannot read .*pictures.csv .*; delete it: pictures that"):
        download(links, tmp_path, fetch)

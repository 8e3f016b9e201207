"""Amazon: 2014, 2018 and 2023, reviews and ratings alone, with metadata and image links."""

from __future__ import annotations

import time

import pytest

from recbole_ext.data.convert.text import plain, price
from recbole_ext.types import UserError
from tests.data.convert.samples import convert_files, records, reviews_2018, rows, write

ITEM = [
    *("item_id:token", "title:token_seq", "brand:token", "categories:token_seq"),
    *("description:token_seq", "price:float"),
]
USER, OTHER = "A1YJEY40YUW4SE", "A60XNB876KYML"
ONE, TWO, THREE = "7806397051", "B00004TMFE", "B000052YAN"


def links(out):
    return (out / "images.csv").read_text().splitlines()


def test_2014(tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "beauty"
    review = {"reviewerID": USER, "asin": ONE, "reviewerName": "Andrea", "helpful": [3, 4]}
    times = {"overall": 1.0, "unixReviewTime": 1391040000, "reviewTime": "01 30, 2014"}
    records(
        raw / "reviews_Beauty_5.json.gz",
        {**review, **times, "reviewText": "Very oily", "summary": "Don't"},
        {**review, **times, "asin": TWO, "overall": 3.0},
    )
    write(raw / "reviews_none.txt", "no data")
    records(
        raw / "meta_Beauty.json.gz",
        {
            **{"asin": TWO, "title": "Pr45&quot; Lace (6 Pairs)", "price": 5.35},
            **{"imUrl": "http://ecx.images-amazon.com/images/I/41Z.jpg", "brand": "Kiwi"},
            **{"salesRank": {"Home &amp; Kitchen": 865765}, "related": {"also_viewed": [ONE]}},
            "categories": [["Beauty", "Hair Care"], ["Beauty", "Laces & More"]],
            "description": 'Kiwi,\n6 pairs,\t45", <b>White</b>',
        },
        {"asin": "0000000000", "title": "Nobody bought it", "categories": [["Beauty"]]},
        {"asin": ONE, "description": "It's 5 < 6 and 7 > 6", "categories": [["Beauty"]]},
        literal=True,
    )
    done = convert_files(raw, out)
    assert done.format == "amazon-2014" and done.sides["item"].described == 2
    assert rows(out / "beauty.inter")[1:] == [
        [USER, ONE, "1", "1391040000"],
        [USER, TWO, "3", "1391040000"],
    ]
    categories = "Beauty Hair_Care Laces_&_More"
    text = "Kiwi, 6 pairs, 45'', White"
    assert rows(out / "beauty.item") == [
        ITEM,
        [TWO, "Pr45'' Lace (6 Pairs)", "Kiwi", categories, text, "5.35"],
        [ONE, "", "", "Beauty", "It's 5 < 6 and 7 > 6", ""],
    ]
    assert links(out) == ["item_id,url", f"{TWO},http://ecx.images-amazon.com/images/I/41Z.jpg"]
    assert not (out / "beauty.user").exists()


def test_a_python_dict_is_read_and_never_run(tmp_path):
    raw, out, mark = tmp_path / "raw", tmp_path / "b", tmp_path / "ran"
    write(raw / "ratings_B.csv", f"{USER},{ONE},5.0,1369699200")
    run = f"{{'asin': '{ONE}', 'title': open({str(mark)!r}, 'w').write('x'), 'imUrl': ''}}"
    write(
        raw / "meta_B.json", run, f"{{'asin': '{ONE}', 'categories': [['B']]}}", "[1]", "(" * 9999
    )
    done = convert_files(raw, out)
    assert not mark.exists() and done.sources[1]["malformed"] == 3
    reasons = [one["reason"] for one in done.sources[1]["first_malformed"]]
    assert reasons[0] == "neither JSON nor a Python dict" and "no record" in reasons[1]


def test_2018(tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "beauty"
    quads = [(USER, ONE, 5.0, 1525478400), (OTHER, TWO, 4.0, 1525478401), (USER, THREE, 2.0, 7)]
    records(raw / "All_Beauty_5.json.gz", *reviews_2018(*quads))
    small, large = "https://m.com/1._SX38_.jpg", ["https://m.com/1.jpg", "https://m.com/2.jpg"]
    base = {"category": [], "description": [], "also_buy": [], "main_cat": "All Beauty"}
    records(
        raw / "meta_All_Beauty.json.gz",
        {
            **{**base, "asin": TWO, "title": '<span id="a">Soap</span><script>x="<b>"</script>'},
            **{"brand": "\n\n by\n  Acme  ", "price": "$1,299.50 - $1,400.00"},
            **{"imageURL": [small], "imageURLHighRes": [*large, large[0]]},
            "description": ["First.", "", "<p>Second &amp; last</p>"],
        },
        {
            **base,
            "asin": ONE,
            "title": "var aPageStart = (new Date()).getTime();",
            "imageURL": [small],
        },
        {**base, "asin": TWO, "title": "Once more"},
        {**base, "asin": THREE, "price": ".a-box-inner{background:#fff}", "title": "\ud83dcat"},
    )
    done = convert_files(raw, out)
    assert done.format == "amazon-2018"
    assert rows(out / "beauty.item")[1:] == [
        [TWO, "Soap", "by Acme", "", "First. Second & last", "1299.50"],
        [ONE, "", "", "", "", ""],
        [THREE, "cat", "", "", "", ""],
    ]
    assert links(out)[1:] == [f"{TWO},{large[0]}", f"{TWO},{large[1]}", f"{ONE},{small}"]
    assert done.sides["item"].repeated == 1
    assert done.notes == {"prices that are none": 1, "titles that are the code of a page": 1}


def test_numbers_out_of_all_bounds_are_malformed_or_no_price(tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "b"
    good, *bad = reviews_2018(*((USER, ONE, rating, 1) for rating in (5.0, 10**400, 1e300, True)))
    late = {**good, "unixReviewTime": float("inf")}
    records(raw / "X_5.json", good, *bad, late, {**good, "overall": None}, [], {"asin": ONE})
    cost = {"asin": ONE, "category": [], "price": 10**400}
    records(raw / "meta_X.json", cost)
    done = convert_files(raw, out)
    assert rows(out / "b.inter")[1:] == [[USER, ONE, "5", "1"]]
    assert (done.sources[0]["lines"], done.sources[0]["malformed"]) == (8, 7)
    assert rows(out / "b.item")[1:] == [[ONE, "", "", "", "", ""]]
    assert done.notes == {"prices that are none": 1}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *[("$12.99", "12.99"), (" $1,234.50 ", "1234.50"), ("from 7.5", "7.5"), ("7", "7")],
        *[(12.5, "12.5"), (0, "0"), (None, ""), ("", ""), ("None", "")],
        *[("12 for 3", None), ("1,23", None), ("-5", None), (-5, None), (True, None), ([5], None)],
        ("$9.99 - $24.99", "9.99"),
        *[("\u0663.\u0665", None), ("$" + "9" * 400, None), ("1_0", None)],
    ],
)
def test_prices(value, expected):
    assert price(value) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a<!-- x > <b> -->b <!-- no end", "a b"),
        ("a<SCRIPT a=1>x = '<b>'</script >b<style>no end", "a b"),
        ('<span class="a-size-medium a-text-normal"', ""),
        ('Soap <span id="a" data-x="1', "Soap"),
        ("5 <a and b", "5 <a and b"),
        ("a </span></span> b", "a b"),
    ],
)
def test_html_is_taken_out_as_a_browser_would(text, expected):
    assert plain(text) == expected


def test_html_without_ends_takes_no_time():
    """By a second look at the rest for each of them it would be a minute."""
    began = time.process_time()
    for one in ("<!--", "<script>", "<script ", "<a ", "</style", "<a b="):
        plain(one * (2**18 // len(one)))
    assert time.process_time() - began < 5


def test_2023(tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "boxes"
    user = "AGKHLEW2SOWHNMFQIJGBECAF7INQ"
    review = {"rating": 4.5, "title": "t", "text": "x", "images": [], "asin": "B00YQ6X8EO"}
    records(
        raw / "All_Beauty.jsonl.gz",
        {**review, "parent_asin": TWO, "user_id": user, "timestamp": 1588687728923},
    )
    size = {"thumb": "https://m/t.jpg", "large": "https://m/l.jpg", "variant": "MAIN"}
    meta = {"main_category": "All Beauty", "average_rating": 4.1, "features": [], "details": {}}
    records(
        raw / "meta_All_Beauty.jsonl.gz",
        {
            **{**meta, "parent_asin": TWO, "title": "Box", "store": "Again Media", "price": "None"},
            **{"categories": ["All Beauty", "Skin Care"], "description": ["a", "b"]},
            "images": [{**size, "hi_res": "https://m/h.jpg"}, {**size, "hi_res": None}, None],
        },
    )
    assert convert_files(raw, out).format == "amazon-2023"
    assert rows(out / "boxes.inter")[1:] == [[user, TWO, "4.5", "1588687728.923"]]
    assert rows(out / "boxes.item")[1:] == [
        [TWO, "Box", "Again Media", "All_Beauty Skin_Care", "a b", ""]
    ]
    assert links(out)[1:] == [f"{TWO},https://m/h.jpg", f"{TWO},https://m/l.jpg"]


def test_2023_as_the_datasets_library_writes_it(tmp_path):
    """A list for each size of the pictures, and not an entry with sizes for each picture."""
    raw, out = tmp_path / "raw", tmp_path / "boxes"
    records(raw / "X.jsonl", {"rating": 5, "parent_asin": TWO, "user_id": USER, "timestamp": 1000})
    sizes = {"hi_res": [None, "https://m/h2.jpg"], "large": ["https://m/l1.jpg", "https://m/l2"]}
    none = {"hi_res": None, "large": []}
    records(
        raw / "meta_X.jsonl",
        {"parent_asin": ONE, "title": "x", "images": none, "price": "None"},
        {"parent_asin": TWO, "images": {**sizes, "thumb": ["t1", "t2", "https://m/t3.jpg"]}},
    )
    convert_files(raw, out)
    assert links(out)[1:] == [f"{TWO},https://m/{one}.jpg" for one in ("l1", "h2", "t3")]


@pytest.mark.parametrize(
    ("name", "lines", "kind"),
    [
        ("ratings_X.csv", [f"{USER},{ONE},5.0,1369699200"], "amazon-2014"),
        ("X.csv", [f"{ONE},{USER},5.0,1369699200"], "amazon-2018"),
        (
            "X.csv.gz",
            ["user_id,parent_asin,rating,timestamp", f"{USER},{ONE},5.0,1369699200000"],
            "amazon-2023",
        ),
    ],
)
def test_ratings_alone(name, lines, kind, tmp_path):
    """2014 has the user first, and 2018 the item."""
    write(tmp_path / "raw" / name, *lines)
    done = convert_files(tmp_path / "raw", tmp_path / "x")
    assert done.format == kind and done.sides == {}
    assert rows(tmp_path / "x" / "x.inter")[1:] == [[USER, ONE, "5", "1369699200"]]


def test_the_parts_of_the_benchmark_are_put_together(tmp_path):
    raw, head = tmp_path / "raw", "user_id,parent_asin,rating,timestamp,history"
    write(raw / "X.test.csv", head, f"{USER},{THREE},5.0,3000,{ONE} {TWO}")
    write(raw / "X.train.csv", head, f"{USER},{ONE},5.0,1000,")
    write(raw / "X.valid.csv", head, f"{USER},{TWO},5.0,2000,{ONE}")
    done = convert_files(raw, tmp_path / "x")
    assert [one["file"] for one in done.sources] == ["X.train.csv", "X.valid.csv", "X.test.csv"]
    assert [row[1] for row in rows(tmp_path / "x" / "x.inter")[1:]] == [ONE, TWO, THREE]
    write(raw / "X.csv", head[:-8], f"{USER},{ONE},5.0,1000")
    with pytest.raises(UserError, match=r"2 sets of interactions, X.csv .*, X.train.csv .* --so"):
        convert_files(raw, tmp_path / "y")


def test_of_several_categories_one_is_named_and_gets_its_metadata(tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "toys"
    for name, item in (("Toys", ONE), ("Books", TWO)):
        records(raw / f"{name}_5.json", *reviews_2018((USER, item, 5.0, 1)))
        records(raw / f"meta_{name}.json", {"asin": item, "title": name, "category": [name]})
    with pytest.raises(UserError, match=r"Books_5.json \(amazon-2018\), Toys_5.json \(amazon-2"):
        convert_files(raw, out)
    convert_files(raw / "Toys_5.json", out)
    assert rows(out / "toys.item")[1:] == [[ONE, "Toys", "", "Toys", "", ""]]
    (raw / "meta_Toys.json").rename(raw / "meta_Games.json")
    with pytest.raises(UserError, match="metadata in meta_Books.json, meta_Games.json, and which"):
        convert_files(raw / "Toys_5.json", tmp_path / "other")


def test_metadata_of_other_items_is_refused(tmp_path):
    raw = tmp_path / "raw"
    records(raw / "Toys_5.json", *reviews_2018((USER, ONE, 5.0, 1)))
    records(raw / "meta_Books.json", {"asin": TWO, "title": "b", "category": ["Books"]})
    with pytest.raises(UserError, match="meta_Books.json knows none of the 1 items"):
        convert_files(raw, tmp_path / "toys")
    assert not (tmp_path / "toys").exists()

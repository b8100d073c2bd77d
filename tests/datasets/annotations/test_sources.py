"""Files of pre-training pairs: what is read of each format, and what is said of a row that is not as it should be."""

import json
from pathlib import Path

import pytest

from datasets import sources
from datasets.annotations import json_list
from datasets.annotations.source_rows import SourceRow
from datasets.sources import PARSERS, missing_of_some, open_source

WEBVID = "videoid,contentUrl,duration,page_dir,name\n"


def rows(path: Path, content: str | bytes) -> list[SourceRow]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with path.open("rb") as file:
        return list(PARSERS[path.suffix](path, file))


def refusal(path: Path, content: str | bytes) -> str:
    """What a bad file is refused with: one line that begins with its name."""
    with pytest.raises(ValueError) as error:
        rows(path, content)
    text = str(error.value)
    assert text.startswith(f"{path}:") and "\n" not in text
    return text.removeprefix(str(path))


def test_webvid(tmp_path: Path) -> None:
    table = WEBVID + (
        "1066674784,https://v/1.mp4,PT00H00M10S,006001_006050,A dog runs\n"
        '25,https://v/2.mp4,PT00H00M20S,006051_006100,"""Aerial"" view, then\na second line"\n'
        "\n"
        "26,https://v/3.mp4,PT00H00M20S,,Déjà vu\r\n"
        "27,https://v/3.mp4,PT00H00M20S,a, - \n"
    )
    expected = [
        SourceRow("006001_006050/1066674784.mp4", ("A dog runs",)),
        SourceRow("006051_006100/25.mp4", ('"Aerial" view, then\na second line',)),
        SourceRow("26.mp4", ("Déjà vu",)),
        SourceRow("a/27.mp4", ()),
    ]
    assert rows(tmp_path / "a.csv", table) == expected
    assert rows(tmp_path / "a.csv", b"\xef\xbb\xbf" + table.encode()) == expected
    # Columns go by name.
    assert rows(tmp_path / "a.csv", "name,page_dir,videoid\nA dog runs,x,1\n") == [
        SourceRow("x/1.mp4", ("A dog runs",))
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("videoid,name\n1,a\n", ":1: no column 'page_dir', found videoid, name; "),
        ("", ":1: no column 'videoid', found nothing; "),
        (WEBVID + "1,u,d,p,a\n2,u,d,p\n", ":3: 4 fields where the header names 5; "),
        (WEBVID + "1,u,d,p,a, b\n", ":2: 6 fields where the header names 5; put quotes"),
        (WEBVID + " ,u,d,p,a\n", ":2: videoid is empty; "),
        (WEBVID + '1,u,d,p,"a\n', ":2: not CSV (unexpected end of data); look for a quote"),
        (WEBVID.encode() + b"1,u,d,p,caf\xe9\n", ":2: byte 0xe9 is no UTF-8; save the file in that encoding"),
    ],
)
def test_bad_webvid(tmp_path: Path, content: str | bytes, said: str) -> None:
    assert refusal(tmp_path / "a.csv", content).startswith(said)


def test_a_quote_that_is_never_closed_does_not_swallow_the_file(tmp_path: Path) -> None:
    said = refusal(tmp_path / "a.csv", WEBVID + '1,u,d,p,"a\n' + "2,u,d,p,b\n" * 40_000)
    assert "not CSV (field larger than field limit" in said and int(said.split(":")[1]) < 20_000


def test_image_tables(tmp_path: Path) -> None:
    plain = 'a "quoted" dog\t00000/000000000.jpg\n\n---\tb.jpg\na clip\tc.mp4\r\n'
    expected = [
        SourceRow("00000/000000000.jpg", ('a "quoted" dog',)),
        SourceRow("b.jpg", ()),
        SourceRow("c.mp4", ("a clip",)),
    ]
    assert rows(tmp_path / "a.tsv", plain) == expected
    assert rows(tmp_path / "a.tsv", "caption\timage\n" + plain) == expected
    assert rows(tmp_path / "a.tsv", "FilePath\tkey\tTitle\na.jpg\t7\tA dog\n") == [SourceRow("a.jpg", ("A dog",))]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            "a dog\thttp://site/a.jpg\n",
            ":1: http://site/a.jpg is an address; download the images first (img2dataset does)",
        ),
        ("a dog\ta.jpg\na cat\n", ":2: 1 fields, not 2; write caption and file with one tab between them"),
        ("caption\timage\nx\ta.jpg\t3\n", ":2: 3 fields, not 2; "),
        ("a dog\t \n", ":1: the file is empty; "),
        (b"a dog\ta.jpg\n\xff\tb.jpg\n", ":2: byte 0xff is no UTF-8; "),
    ],
)
def test_bad_image_tables(tmp_path: Path, content: str | bytes, said: str) -> None:
    assert refusal(tmp_path / "a.tsv", content).startswith(said)


ITEMS = [
    {"path": "/v/a.mp4", "caption": "A dog é 😀", "extra": {"nested": [1, "]},{"]}},
    {"video": "b.webm", "caption": ["one", "...", "two"]},
    {"image": "c.jpg", "caption": " "},
]
READ = [SourceRow("/v/a.mp4", ("A dog é 😀",)), SourceRow("b.webm", ("one", "two")), SourceRow("c.jpg", ())]


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 1 << 20])
@pytest.mark.parametrize("escaped", [False, True])
def test_lists_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int, escaped: bool) -> None:
    """Wherever a piece ends, in a character, a number or a string, the items are those of `json.loads`."""
    monkeypatch.setattr(json_list, "PIECE", piece)
    for indent in (None, 2):
        assert rows(tmp_path / "a.json", json.dumps(ITEMS, ensure_ascii=escaped, indent=indent)) == READ
    assert rows(tmp_path / "a.json", "\ufeff [ ] \n") == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"path": "a.mp4", "caption": "a"}', ": no JSON list; a file with one object a line is called .jsonl"),
        ("", ": no JSON list; "),
        ('[{"path": "a.mp4", "caption": "a"}, 7]', ": item 2: found int, not an object; "),
        ('[{"path": "a.mp4"}]', ": item 1: no key 'caption'; add it"),
        ('[{"caption": "a"}]', ": item 1: no file given; name the file under one of path, video, image"),
        ('[{"path": "a", "image": "b", "caption": "a"}]', ": item 1: path and image given; "),
        ('[{"path": 3, "caption": "a"}]', ": item 1: path is 3; write the path"),
        ('[{"path": "a.mp4", "caption": {"en": "a"}}]', ": item 1: caption is {'en': 'a'}; write a text"),
        ('[{"path": "a.mp4", "caption": "a"} {"path": 1}]', ": item 1: followed by '{'; write a comma"),
        ('[{"path": "a.mp4", "caption": "a"},', ": item 2: not JSON (Expecting value)"),
        ('[{"path": "a.mp4", "caption": "a"}', ": item 1: followed by the end of the file; "),
        ('[{"path": "a.mp4", "caption": "a', ": item 1: not JSON (Unterminated string"),
        ('[{"path": "a.mp4", "caption": "a"}] []', ": '[' after the end of the list; "),
        ("[" * 100_000, ": item 1: nested too deeply; "),
        (b'[{"path": "a.mp4", "caption": "caf\xe9"}]', ": after byte 0: byte 0xe9 is no UTF-8; "),
    ],
)
def test_bad_lists(tmp_path: Path, content: str | bytes, said: str) -> None:
    assert refusal(tmp_path / "a.json", content).startswith(said)


def test_a_broken_item_does_not_read_the_whole_list_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_list, "PIECE", 1 << 10)
    monkeypatch.setattr(json_list, "LONGEST_ITEM", 1 << 12)
    path = tmp_path / "a.json"
    path.write_text('[{"path" "a.mp4"}' + ', {"path": "b.mp4", "caption": "a"}' * 10_000 + "]")
    with path.open("rb") as file, pytest.raises(ValueError, match="item 1: not JSON"):
        list(json_list.rows(path, file))
    with path.open("rb") as file:
        with pytest.raises(ValueError):
            next(json_list.items(path, file))
        assert file.tell() <= 1 << 13


def test_manifests(tmp_path: Path) -> None:
    content = (
        '{"video": "a.mp4", "caption": ["One", "two"], "start": 1, "end": 2.5}\n\n{"video": "b.png", "caption": "x"}\n'
    )
    assert rows(tmp_path / "a.jsonl", content) == [
        SourceRow("a.mp4", ("One", "two"), 1, 2.5),
        SourceRow("b.png", ("x",)),
    ]
    said = refusal(tmp_path / "a.jsonl", content + '{"video": "c.mp4", "captoin": "x"}\n')
    assert said.startswith(":4: unknown key 'captoin'; did you mean 'caption'?")
    assert refusal(tmp_path / "a.jsonl", '{"video": "c.mp4", "caption": "!"}').startswith(
        ":1: caption '!' has no words"
    )


def test_files_that_are_not_there_or_of_no_format(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"pairs.parquet: no format for '.parquet'; .* .jsonl, .csv, .json, .tsv"):
        open_source(tmp_path / "pairs.parquet", tmp_path)
    with pytest.raises(ValueError, match="pairs.csv: no such file; data.sources"):
        open_source(tmp_path / "pairs.csv", tmp_path)


def test_some_files_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "pairs.tsv"
    path.write_text("".join(f"caption {number}\t{number}.jpg\n" for number in range(100)))
    table = open_source(path, tmp_path)
    with pytest.raises(
        ValueError, match=r"pairs.tsv: none of 100 .*\(the first is .*/0.jpg\); set data.videos, or media"
    ):
        missing_of_some(path, table)
    for number in range(0, 100, 4):
        (tmp_path / f"{number}.jpg").touch()
    assert missing_of_some(path, table) == (75, 100)
    monkeypatch.setattr(sources, "FILES_LOOKED_FOR", 30)
    assert missing_of_some(path, table) == (0, 25)  # every fourth

"""The command that indexes files ahead of a job."""

from pathlib import Path

import pytest

from scripts.index_pairs import main


def test_it_prints_what_is_in_each_file_and_leaves_their_indices(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.tsv").write_text("a dog\t0.jpg\n...\t1.jpg\n")
    (tmp_path / "b.jsonl").write_text('{"video": "a.mp4", "caption": ["one", "two"]}\n')
    main([str(tmp_path / "a.tsv"), str(tmp_path / "b.jsonl")])
    first, second = capsys.readouterr().out.splitlines()
    folder = tmp_path / "a.tsv.index" / "table"
    assert first.startswith(f"{tmp_path}/a.tsv: 1 pairs of 1 videos or images, 1 rows without words left out, ")
    assert f" 50 B in {folder}, opened in " in first and folder.is_dir()
    assert second.startswith(f"{tmp_path}/b.jsonl: 2 pairs of 1 videos or images, 0 rows without words left out, ")


def test_a_bad_row_ends_it_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("a dog\t0.jpg\na cat\thttps://site/1.jpg\n")
    with pytest.raises(SystemExit, match=r"^error: .*a.tsv:2: https://site/1.jpg is an address; .*$"):
        main([str(tmp_path / "a.tsv")])

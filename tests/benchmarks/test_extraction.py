"""What the benchmark of extraction makes of its times."""

import pytest

from benchmarks import extraction
from benchmarks.extraction import in_words, parse_arguments, row_of


def test_the_limit_is_the_slowest_part_or_all_work_on_all_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extraction, "usable_cores", lambda: 2)
    cpu = {(size, f"{work}_cpu"): 8.0 for size in (1, 2, 4) for work in ("decoding", "encoding")}
    cpu |= {(size, "hosts_cpu"): 20.0 for size in (1, 2, 4)}
    times = {(1, "decoding"): 8.0, (1, "encoding"): 6.0, (1, "hosts"): 10.0, (1, "local"): 9.0}
    times |= {(2, "decoding"): 4.0, (2, "encoding"): 3.0, (2, "hosts"): 8.0}
    times |= {(4, "decoding"): 4.0, (4, "encoding"): 3.0, (4, "hosts"): 7.0}

    one, two, four = (row_of(size, times | cpu, hours=0.5) for size in (1, 2, 4))
    # One process reads on one core and encodes on the other; two have to do both on each.
    assert (one.limit_s, two.limit_s, four.limit_s) == (8.0, 7.0, 7.0)
    assert (one.video_hours_an_hour, one.decoding_over_hosts, one.limit_over_hosts) == (180.0, 0.8, 0.8)
    assert four.limit_over_hosts == 1.0 and four.work_over_hosts_cpu == 0.8
    assert "10.00 s, 180 video-hours an hour" in in_words(one) and "local 9.00 s" in in_words(one)
    assert "local" not in in_words(two)


def test_it_is_told_what_to_measure() -> None:
    request = parse_arguments(["--checkpoint", "C", "--processes", "1", "4", "--copies", "5", "--json"])
    assert (request.checkpoint, request.processes, request.copies, request.as_json) == ("C", (1, 4), 5, True)
    with pytest.raises(SystemExit):
        parse_arguments(["--checkpoint", "C", "--processes", "0"])

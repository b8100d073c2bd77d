"""VindLU's lists in every data set that UMT reads, and the authors' files of those that are new with them."""

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from datasets.annotations import public
from datasets.records import ChoiceRecord, QuestionRecord, VideoTextRecord
from tests.datasets.annotations.folders import error_of, touch, write_json, write_lines

PAIRS = [
    {"video": "a.mp4", "caption": "one", "duration": 1.5},
    {"video": "b.mp4", "caption": ["two", "three"]},
    {"video": "a.mp4", "caption": "four"},
]
PARAGRAPHS = [{"video": "a.mp4", "caption": [" One. ", "Two."]}, {"video": "b.mp4", "caption": ["Three."]}]
SHARED = [{"caption": "Opening something", "video": ["a.mp4", "b.mp4"]}, {"caption": "Closing it", "video": "c.mp4"}]
QUESTIONS = [
    {"video": "a.mp4", "question": "what is it?", "answer": "ball", "question_id": "x"},
    {"video": "a.mp4", "question": "is it red?", "answer": ["yes", "no", "yes"]},
]
CHOICES = [{"video": "a.mp4", "caption": ["one", "two", "three"], "answer": 2}]

# Which file of which data set has which rows, and what part of the data it is.
FILES = [
    ("msrvtt", "train_9k", "msrvtt_ret_train9k.json", PAIRS, "train_9k"),
    ("msrvtt", "train", "msrvtt_ret_train7k.json", PAIRS, "train_7k"),
    ("msrvtt", "test", "msrvtt_ret_test1k.json", PAIRS, "test_1k"),
    ("msvd", "test", "msvd_ret_test.json", PAIRS, "test"),
    ("lsmdc", "val", "lsmdc_ret_val_1000.json", PAIRS, "val"),
    ("lsmdc", "test", "lsmdc_ret_test_1000.json", PAIRS, "test"),
    ("didemo", "train", "didemo_ret_train.json", PARAGRAPHS, "train"),
    ("didemo", "test", "didemo_ret_test.json", PARAGRAPHS, "test"),
    ("activitynet_captions", "train", "anet_ret_train.json", PARAGRAPHS, "train"),
    ("activitynet_captions", "test", "anet_ret_val_1.json", PARAGRAPHS, "val_1"),
    ("activitynet_captions", "val", "anet_ret_val.json", PARAGRAPHS, "val_1"),
    ("ssv2_label", "train", "ssv2_ret_label_train.json", SHARED, "train"),
    ("ssv2_label", "test", "ssv2_ret_label_val_small.json", SHARED, "val_small"),
    ("ssv2_template", "val", "ssv2_ret_template_val_small.json", SHARED, "val_small"),
    ("msrvtt_qa", "val", "msrvtt_qa_val.json", QUESTIONS, "val"),
    ("msvd_qa", "test", "msvd_qa_test.json", QUESTIONS, "test"),
    ("activitynet_qa", "train", "anet_qa_train.json", QUESTIONS, "train"),
    ("msrvtt_mc", "val", "msrvtt_mc_test.json", CHOICES, "test"),
]


def expected(rows: list[dict[str, Any]], at: Callable[[str], str], has_kinds: bool) -> list[object]:
    if rows is PAIRS:
        return [VideoTextRecord(at("a"), ("one", "four")), VideoTextRecord(at("b"), ("two", "three"))]
    if rows is PARAGRAPHS:
        return [VideoTextRecord(at("a"), ("One. Two.",)), VideoTextRecord(at("b"), ("Three.",))]
    if rows is SHARED:
        texts = (("a", "Opening something"), ("b", "Opening something"), ("c", "Closing it"))
        return [VideoTextRecord(at(name), (text,)) for name, text in texts]
    if rows is CHOICES:
        return [ChoiceRecord(at("a"), ("one", "two", "three"), 2)]
    kinds = ("what", "other") if has_kinds else (None, None)
    first = QuestionRecord(at("a"), "what is it?", ("ball",), (1.0,), "x", kinds[0])
    second = QuestionRecord(at("a"), "is it red?", ("yes", "no"), (2 / 3, 1 / 3), "1", kinds[1])
    return [first, second]


@pytest.mark.parametrize(("dataset", "split", "file", "rows", "part"), FILES, ids=[file for _, _, file, _, _ in FILES])
def test_each_list_is_read_as_its_data_set(
    tmp_path: Path, dataset: str, split: str, file: str, rows: list[dict[str, Any]], part: str
) -> None:
    write_json(tmp_path / file, rows)
    videos = touch(tmp_path / "videos", "a.mp4", "b.mkv", "c.webm")
    paths = {path.stem: str(path) for path in videos.iterdir()}
    annotations = public.read(dataset, tmp_path, split, videos)
    assert annotations.records == expected(rows, paths.__getitem__, has_kinds=dataset == "msrvtt_qa")
    assert (annotations.dataset, annotations.split, len(annotations.names)) == (dataset, part, len(annotations.records))
    assert annotations.source == f"VindLU's repackaged annotations ({file})"


MANY = "not a text or a list of texts"
BAD = [
    # data set, file, rows, error
    ("msrvtt", "msrvtt_ret_test1k.json", [PAIRS[0], {"video": "a.mp4", "caption": 3}], f"item 1: caption is 3, {MANY}"),
    ("msrvtt", "msrvtt_ret_test1k.json", [{"video": "a.mp4"}], "item 0: no key 'caption'"),
    ("msrvtt", "msrvtt_ret_test1k.json", {"a": 1}, "found dict, not a list of objects"),
    ("msvd", "msvd_ret_test.json", [{"video": "", "caption": "x"}], "item 0: video is '', not a text"),
    ("msvd", "msvd_ret_test.json", [{"video": "a", "caption": []}], f"item 0: caption is [], {MANY}"),
    ("lsmdc", "lsmdc_ret_test_1000.json", [{"video": "a", "caption": [" "]}], "item 0: caption is [' '], not"),
    ("didemo", "didemo_ret_test.json", [{"video": "a", "caption": "spelt out"}], "item 0: caption is 'spelt out'"),
    ("activitynet_captions", "anet_ret_val_1.json", [{"video": "a", "caption": [""]}], "item 0: caption has no words"),
    ("ssv2_label", "ssv2_ret_label_val_small.json", [{"caption": "x", "video": [3]}], f"item 0: video is [3], {MANY}"),
    ("ssv2_template", "ssv2_ret_template_val_small.json", [{"caption": [], "video": "a"}], "item 0: caption is []"),
    ("msrvtt_qa", "msrvtt_qa_test.json", [QUESTIONS[0], QUESTIONS[0]], "item 1: question_id 'x' is an earlier"),
    ("msvd_qa", "msvd_qa_test.json", [QUESTIONS[0] | {"answer": None}], f"item 0: answer is None, {MANY}"),
    ("activitynet_qa", "anet_qa_test.json", [{"video": "a", "answer": "b"}], "item 0: no key 'question'"),
    ("msrvtt_mc", "msrvtt_mc_test.json", [CHOICES[0] | {"answer": 3}], "item 0: answer is 3, not the number of one"),
    ("msrvtt_mc", "msrvtt_mc_test.json", [CHOICES[0] | {"answer": True}], "item 0: answer is True, not the number"),
    ("msrvtt_mc", "msrvtt_mc_test.json", [CHOICES[0] | {"caption": "one"}], "item 0: caption has a single text"),
]  # fmt: skip


@pytest.mark.parametrize(("dataset", "file", "rows", "found"), BAD)
def test_bad_lists_name_the_file_and_the_item(tmp_path: Path, dataset: str, file: str, rows: Any, found: str) -> None:
    write_json(tmp_path / file, rows)
    text = error_of(lambda: public.read(dataset, tmp_path, "test", tmp_path))
    assert text.startswith(f"{tmp_path / file}: {found}")


def lsmdc_table(path: Path, lines: Sequence[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines))


def test_lsmdc_of_its_authors(tmp_path: Path) -> None:
    times = "00:00:44.250\t00:00:47.300"
    clips = ("1001_Film_00.00.44.250-00.00.47.300", "1001_Film_00.01.00.000-00.01.02.500")
    lsmdc_table(
        tmp_path / "LSMDC16_challenge_1000_publictect.csv",
        [f"{clips[0]}\t{times}\t{times}\tSOMEONE looks up.", f"{clips[1]}\t{times}\t{times}\tIt rains. "],
    )
    videos = touch(tmp_path / "videos", f"1001_Film/{clips[0]}.avi", f"{clips[1]}.mp4")
    annotations = public.read("lsmdc", tmp_path, "test", videos)
    assert annotations.records == [
        VideoTextRecord(str(videos / "1001_Film" / f"{clips[0]}.avi"), ("SOMEONE looks up.",)),
        VideoTextRecord(str(videos / f"{clips[1]}.mp4"), ("It rains.",)),
    ]
    assert annotations.names == clips and annotations.split == "test"

    for line, found in (("a clip", "1 columns between tabs"), (f"{clips[0]}\tagain", "clip '1001_Film_00.00.44.250")):
        path = tmp_path / "LSMDC16_annos_training.csv"
        lsmdc_table(path, [f"{clips[0]}\t{times}\tOne.", line])
        assert error_of(lambda: public.read("lsmdc", tmp_path, "train", videos)).startswith(f"{path}:2: {found}")


def test_ssv2_of_its_authors_by_label_and_by_template(tmp_path: Path) -> None:
    rows = [
        {"id": "7", "label": "opening a box", "template": "Opening [something]", "placeholders": ["a box"]},
        {"id": "9", "label": "opening a door", "template": "Opening [something]", "placeholders": ["a door"]},
    ]
    path = write_json(tmp_path / "something-something-v2-validation.json", rows)
    for name, texts in (("label", ["opening a box", "opening a door"]), ("template", ["Opening something"] * 2)):
        annotations = public.read(f"ssv2_{name}", tmp_path, "test", tmp_path)
        assert [record.captions for record in annotations.records] == [(text,) for text in texts]
        assert annotations.split == "val_full" and annotations.names == ("7.webm", "9.webm")

    write_json(path, [rows[0], rows[0]])
    assert error_of(lambda: public.read("ssv2_label", tmp_path, "val", tmp_path)).startswith(f"{path}: item 1: id '7' ")


def test_msvd_of_its_authors_with_texts_and_with_words(tmp_path: Path) -> None:
    (tmp_path / "test_list.txt").write_text("-b_5_15\na_1_2")  # ends without a line break
    (tmp_path / "raw-captions.pkl").write_bytes(
        pickle.dumps({"a_1_2": [["one", "two"]], "-b_5_15": [["three"], ["x"]]})
    )
    videos = touch(tmp_path / "videos", "-b_5_15.avi")
    of_words = public.read("msvd", tmp_path, "test", videos)
    write_json(tmp_path / "captions_msvd.json", {"a_1_2": ["one two"], "-b_5_15": ["three", "x"], "c": ["unlisted"]})
    texts = public.read("msvd", tmp_path, "test", videos)
    assert (
        of_words.records == texts.records
        and "raw-captions" in of_words.source
        and texts.source.startswith("the authors'")
    )
    assert of_words.records == [
        VideoTextRecord(str(videos / "-b_5_15.avi"), ("three", "x")),
        VideoTextRecord(str(videos / "a_1_2.avi"), ("one two",)),
    ]

    write_json(tmp_path / "captions_msvd.json", {"a_1_2": ["one two"], "-b_5_15": [3]})
    text = error_of(lambda: public.read("msvd", tmp_path, "test", videos))
    assert text.startswith(f"{tmp_path / 'captions_msvd.json'}: '-b_5_15': captions are [3], not a list of texts")
    (tmp_path / "test_list.txt").write_text("a_1_2\nnobody")
    assert error_of(lambda: public.read("msvd", tmp_path, "test", videos)).startswith(
        f"{tmp_path / 'test_list.txt'}:2: "
    )


def test_msvd_qa_of_its_authors_and_of_hqga_with_and_without_names(tmp_path: Path) -> None:
    rows = [{"id": 3, "video_id": 2, "question": "Who runs?", "answer": "man"}]
    videos = touch(tmp_path / "videos", "vid2.mp4", "-b_5_15.avi")
    write_json(tmp_path / "test_qa.json", rows)
    (tmp_path / "val.csv").write_text("video,width,height,question,answer,qid\n2,6,4,Who runs?,man,3\n")

    numbered = [public.read("msvd_qa", tmp_path, split, videos) for split in ("test", "val")]
    record = QuestionRecord(str(videos / "vid2.mp4"), "Who runs?", ("man",), (0.2,), "3", "who")
    assert [annotations.records for annotations in numbered] == [[record], [record]]

    (tmp_path / "youtube_mapping.txt").write_text("a_1_2 vid1\n-b_5_15 vid2\n")
    assert public.read("msvd_qa", tmp_path, "test", videos).records[0].video == str(videos / "-b_5_15.avi")
    (tmp_path / "youtube_mapping.txt").unlink()
    write_json(tmp_path / "id_mapping.json", {"1": "a_1_2"})
    text = error_of(lambda: public.read("msvd_qa", tmp_path, "val", videos))
    assert text.startswith(f"{tmp_path / 'val.csv'}:2: video 2 is not among the 1 named ones")
    (tmp_path / "val.csv").write_text("video,question,answer,qid\nvid2,Who?,man,3\n")
    assert error_of(lambda: public.read("msvd_qa", tmp_path, "val", videos)).startswith(
        f"{tmp_path / 'val.csv'}:2: video"
    )


def test_choices_as_lines_and_the_captions_to_train_on(tmp_path: Path) -> None:
    write_lines(tmp_path / "mc_test.jsonl", [{"clip_name": "video3", "options": ["one", "two"], "answer": 1}])
    annotations = public.read("msrvtt_mc", tmp_path, "test", tmp_path)
    assert annotations.records == [ChoiceRecord(str(tmp_path / "video3.mp4"), ("one", "two"), 1)]
    assert annotations.names == ("video3",)

    write_lines(tmp_path / "mc_test.jsonl", [{"clip_name": "video3", "options": ["one", "two"], "answer": 2}])
    text = error_of(lambda: public.read("msrvtt_mc", tmp_path, "test", tmp_path))
    assert text.startswith(f"{tmp_path / 'mc_test.jsonl'}:1: answer is 2, not the number of one of 2 options")

    write_json(tmp_path / "msrvtt_ret_train7k.json", PAIRS)
    training = public.read("msrvtt_mc", tmp_path, "train", tmp_path)
    assert (training.dataset, training.split, len(training.records)) == ("msrvtt", "train_7k", 2)


# As the authors, and the papers, count them: records, texts and videos.
REAL = [
    ("msrvtt", "msrvtt", "test", "test_1k", 1000, 1000, 1000),
    ("msvd", "msvd", "train", "train", 1200, 48774, 1200),
    ("msvd", "msvd", "val", "val", 100, 4290, 100),
    ("msvd", "msvd", "test", "test", 670, 27763, 670),
    ("activitynet_captions", "activitynet_captions", "test", "val_1", 4917, 4917, 4917),
    ("didemo", "didemo", "test_merged", "test_merged", 1004, 1004, 1004),
    ("ssv2_label", "ssv2", "val_full", "val_full", 24777, 24777, 24777),
    ("ssv2_template", "ssv2", "test", "val_full", 24777, 24777, 24777),
    ("msrvtt_qa", "msrvtt_qa", "val", "val", 12278, 12278, 497),
    ("msvd_qa", "msvd_qa/hqga", "train", "train", 30933, 30933, 1161),
    ("msvd_qa", "msvd_qa/hqga", "val", "val", 6415, 6415, 245),
    ("msvd_qa", "msvd_qa/hqga", "test", "test", 13157, 13157, 504),
    ("activitynet_qa", "activitynet_qa", "test", "test", 8000, 8000, 800),
]


@pytest.mark.parametrize(("dataset", "folder", "split", "part", "records", "texts", "videos"), REAL)
def test_real_files_have_the_published_counts(
    real_data: Path, dataset: str, folder: str, split: str, part: str, records: int, texts: int, videos: int
) -> None:
    annotations = public.read(dataset, real_data / "annotations" / folder, split, Path("/videos"))
    found = [len(record.captions) if isinstance(record, VideoTextRecord) else 1 for record in annotations.records]
    assert (annotations.split, len(found), sum(found)) == (part, records, texts)
    assert len({record.video for record in annotations.records}) == videos


def test_vindlus_real_lists_are_the_authors_annotations(real_data: Path, tmp_path: Path) -> None:
    for dataset, file in (("msrvtt", "msrvtt_ret_test1k.json"), ("activitynet_captions", "anet_ret_val_1.json")):
        (tmp_path / dataset).mkdir()
        (tmp_path / dataset / file).symlink_to(real_data / "annotations" / dataset / file)
        theirs = public.read(dataset, tmp_path / dataset, "test", Path("/videos"))
        own = public.read(dataset, real_data / "annotations" / dataset, "test", Path("/videos"))
        assert theirs.records == own.records and theirs.source.startswith("VindLU's")


def test_real_videos_of_msvd_qa_have_the_names_of_msvd(real_data: Path, tmp_path: Path) -> None:
    (tmp_path / "test.csv").symlink_to(real_data / "annotations/msvd_qa/hqga/test.csv")
    (tmp_path / "id_mapping.json").symlink_to(real_data / "annotations/stoa_vlp/id_mapping.json")
    questions = public.read("msvd_qa", tmp_path, "test", Path("/videos"))
    captions = [
        public.read("msvd", real_data / "annotations/msvd", split, Path("/videos")) for split in ("val", "test")
    ]
    assert set(questions.names) <= {name for part in captions for name in part.names}

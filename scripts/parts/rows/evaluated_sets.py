"""The sets that rows of several systems are evaluated on, with how many videos and texts they officially have."""

from scripts.parts.rows.row import EvaluatedSet

QUERYD = EvaluatedSet(
    title="QuerYD",
    split="test",
    videos=None,
    texts=None,
    counted="the release lists the videos that were still online then; no public source counts them",
)
CONDENSED_MOVIES = EvaluatedSet(
    title="Condensed Movies",
    split="test",
    videos=None,
    texts=None,
    counted="the challenge's list of test clips is counted in no public source",
    is_challenge=True,
)
DIDEMO = EvaluatedSet(
    title="DiDeMo",
    split="test",
    videos=1004,
    texts=1004,
    counted="what published results are of; with the authors' test_data.json that is data.test_split=test_merged",
    other_split="test_merged",
)
ACTIVITYNET = EvaluatedSet(
    title="ActivityNet Captions",
    split="val_1",
    videos=4917,
    texts=4917,
    counted="the authors' val_1.json, a paragraph a video; the paper's test set is this validation set",
)
ACTIVITYNET_QA = EvaluatedSet(
    title="ActivityNet-QA", split="test", videos=800, texts=8000, counted="the authors' test_q.json"
)
MSRVTT = EvaluatedSet(
    title="MSR-VTT", split="test_1k", videos=1000, texts=1000, counted="MSRVTT_JSFUSION_test.csv, the 1k-A split"
)
MSVD = EvaluatedSet(
    title="MSVD", split="test", videos=670, texts=27763, counted="the authors' list and captions, each a query"
)
LSMDC = EvaluatedSet(
    title="LSMDC", split="test", videos=1000, texts=1000, counted="the challenge's clips, as its file is called"
)
SSV2_LABEL = EvaluatedSet(
    title="SSV2-label",
    split="val_small",
    videos=None,
    texts=None,
    counted="the list of this part of the validation set is not public",
)
SSV2_TEMPLATE = EvaluatedSet(
    title="SSV2-template", split="val_small", videos=None, texts=None, counted=SSV2_LABEL.counted
)
MSRVTT_QA = EvaluatedSet(
    title="MSR-VTT-QA", split="test", videos=2990, texts=72821, counted="the authors' numbers of questions"
)
MSVD_QA = EvaluatedSet(title="MSVD-QA", split="test", videos=504, texts=13157, counted="HQGA's copy of the test set")
MSRVTT_MC = EvaluatedSet(
    title="MSR-VTT-MC", split="test", videos=None, texts=None, counted="no copy of the test set was at hand"
)
HMDB51 = EvaluatedSet(
    title="HMDB-51", split="test1", videos=1530, texts=None, counted="split 1 of the authors' lists", other_split="test"
)
UCF101 = EvaluatedSet(
    title="UCF-101", split="test1", videos=3783, texts=None, counted="the authors' testlist01.txt", other_split="test"
)
KINETICS400 = EvaluatedSet(
    title="Kinetics-400",
    split="val",
    videos=None,
    texts=None,
    counted="every copy has lost other videos, and TVTSv2's list is not to be had",
)
SSV2_MC = EvaluatedSet(
    title="SSV2 multiple choice",
    split="val",
    videos=None,
    texts=None,
    counted="TVTSv2's val.jsonl is not to be had",
)

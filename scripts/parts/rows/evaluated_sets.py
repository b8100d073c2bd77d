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

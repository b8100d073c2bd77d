"""An absolute scale for cosines: how probable it is that a text describes a video.

A cosine alone says little: 0.3 is a match for one checkpoint and noise for another. Contrastive training calibrates its
softmax instead: cosines divided by the learned temperature are the logits of which text of a batch is the video's. Here
the rest of that batch is a fixed list of captions, shown the videos of the index. The result depends on the checkpoint,
the index and the cosine alone, not on what else was found, so searches can be compared. It is an estimate: best for
checkpoints trained on videos and English of every kind; the matching head, where there is one, is the better judge.
"""

import numpy as np
from numpy.typing import NDArray

MATCHES = 0.5
"""A video of a smaller probability is more likely not what the text describes."""
MAY_DESCRIBE = 3
"""The captions nearest to a video are left out, as some may describe it."""
EVERYDAY_CAPTIONS = (
    "a man rides a bicycle down a mountain trail",
    "two women are talking in a kitchen",
    "a dog runs across a field and catches a ball",
    "a cat sleeps on a sofa",
    "a chef cuts onions on a wooden board",
    "children play football in a park",
    "a train arrives at the station",
    "waves break on a rocky beach at sunset",
    "a band plays a song on a stage",
    "a woman puts on lipstick in front of a mirror",
    "a crowd cheers in a stadium",
    "a car drives through the city at night",
    "snow falls on the trees",
    "a boy plays the guitar in his room",
    "someone opens a box and takes out a phone",
    "a horse jumps over a fence",
    "a baby laughs in its chair",
    "people dance at a wedding",
    "a man speaks into a microphone",
    "a bird sits on a branch and flies away",
    "a surfer falls into the water",
    "a person types on a keyboard",
    "the camera pans over a green valley",
    "a teacher writes on the blackboard",
    "a plane takes off from the runway",
    "an old man walks with a stick",
    "a girl blows out the candles on a cake",
    "water is poured into a glass",
    "a gymnast does a handstand",
    "workers build a house",
    "a video game character shoots at monsters",
    "fish swim around a coral reef",
    "a woman shows how to fold a paper crane",
    "a mechanic repairs an engine",
    "a news presenter talks about the weather",
    "two boxers fight in a ring",
    "a family eats dinner at a table",
    "rain runs down a window",
    "a skateboarder does a trick on a ramp",
    "a singer walks through the audience",
    "someone paints a wall blue",
    "a boat sails on the lake",
    "sheep graze on a hill",
    "a doctor examines a patient",
    "a cartoon mouse runs from a cat",
    "a judge tastes a dish and smiles",
    "fireworks explode over the river",
    "a man lifts weights in a gym",
    "a child draws with crayons",
    "a woman does yoga on a mat",
    "people wait in line outside a shop",
    "a butterfly lands on a flower",
    "a basketball player scores",
    "a soldier salutes a flag",
    "hands knead dough on a table",
    "a truck is stuck in the mud",
    "an elephant drinks from a pond",
    "a magician shows a card trick",
    "the screen shows a chart and a title",
    "friends sit around a campfire",
    "a swimmer dives into the pool",
    "a man in a suit gives a speech",
    "clouds move over a city in time lapse",
    "someone walks a dog along the beach",
)
"""What happens in videos of many kinds."""


def even_cosine(everyday_cosine: NDArray, temperature: float) -> float:
    """The cosine at which it is as likely as not that a text describes a video.

    There its logit equals what everyday captions have together, on average over the videos.

    Args:
        everyday_cosine: (V, N) of EVERYDAY_CAPTIONS with each video; the MAY_DESCRIBE largest of each are left out.
        temperature: what the checkpoint learned to divide cosines by.
    """
    others = np.sort(everyday_cosine, axis=1)[:, : everyday_cosine.shape[1] - MAY_DESCRIBE].astype(np.float64)
    # Less the largest, so that a small temperature overflows nothing.
    largest = float(others.max())
    together = np.exp((others - largest) / temperature).sum(axis=1)
    return largest + temperature * float(np.log(together.mean()))


def probability_of_cosine(cosine: NDArray, even: float, temperature: float) -> NDArray:
    """The probability (V,) that a text describes each of V videos, rather than an everyday caption.

    It grows with the cosine (V,), is 0.5 at `even_cosine`, and is as steep as the temperature says.
    """
    return 0.5 + 0.5 * np.tanh((cosine.astype(np.float64) - even) / (2 * temperature))

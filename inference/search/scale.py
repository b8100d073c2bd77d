"""An absolute scale for cosines: the probability that a text describes a video.

A cosine alone says little: 0.3 is a match for one checkpoint and noise for another. Contrastive training calibrates a
softmax instead: cosines divided by the learned temperature are the logits of which text in a batch belongs to the
video. Here a fixed list of everyday captions plays the rest of the batch, compared with the videos of the index. The
result depends only on the checkpoint, the index and the cosine, not on other hits, so searches can be compared. It is
an estimate, best for checkpoints trained on varied videos and English; a matching head, if there is one, judges better.
"""

import numpy as np
from numpy.typing import NDArray

MATCHES = 0.5
"""Below this probability a video is more likely no match."""
MAY_DESCRIBE = 3
"""So many of the captions nearest to each video are left out, because they may describe it."""
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
"""Captions of common scenes in many kinds of videos."""


def even_cosine(everyday_cosine: NDArray, temperature: float) -> float:
    """The cosine at which the probability that a text describes a video is 0.5.

    There exp(cosine / temperature) equals the sum of the same over the everyday captions, averaged over the videos.

    Args:
        everyday_cosine: (V, N), each video with EVERYDAY_CAPTIONS; the MAY_DESCRIBE largest per video are left out.
        temperature: the divisor of cosines that the checkpoint learned.
    """
    others = np.sort(everyday_cosine, axis=1)[:, : everyday_cosine.shape[1] - MAY_DESCRIBE].astype(np.float64)
    # Subtract the largest, so that a small temperature cannot overflow.
    largest = float(others.max())
    together = np.exp((others - largest) / temperature).sum(axis=1)
    return largest + temperature * float(np.log(together.mean()))


def probability_of_cosine(cosine: NDArray, even: float, temperature: float) -> NDArray:
    """The probability (V,) that a text describes each of V videos, rather than an everyday caption.

    It grows with the cosine (V,) and is 0.5 at `even_cosine`; a smaller temperature makes it steeper.
    """
    return 0.5 + 0.5 * np.tanh((cosine.astype(np.float64) - even) / (2 * temperature))

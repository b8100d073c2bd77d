"""A trained checkpoint as one object: it turns videos and texts into embeddings, matches, answers and captions.

`inference.api.load_model` makes one. Shapes: V videos, P texts, E width of the shared space, N video tokens, D width,
T frames, L patches a frame.
"""

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from datasets.progress import FileProgress
from datasets.reading import OwnLine
from datasets.samples import Clip, collate
from datasets.sampling import Windows as SlidingWindows
from engine.distributed import is_main
from engine.hub import Checkpoint
from engine.precision import Precision, autocast
from inference.classifying import FoundClass, best, classifier, evaluation_of
from inference.features.windows import Windows, ends_read
from inference.outputs import EncodedTokens, Match, PixelFeatures, VideoWindows
from inference.trained import CAN_DO, Seconds, Video, abilities_of, check_texts, duration_of, records_of
from models.parts.features import VideoFeatures
from models.parts.ragged import joined_rows
from tasks.base import VideoTextTask
from tasks.caption import CaptionTask
from tasks.chosen_tokens import TokenShare, match_share
from tasks.clips import clip_tokens, embed_clip, encode_clip
from tasks.data import clean_up, video_text
from tasks.tokenized_texts import TEXTS_AT_ONCE
from tasks.views import embed_clips, in_order, windows_of
from tasks.vqa import AnswerList, VqaTask, padded, question_tokens

VIDEOS_AT_ONCE = 8
PRETRAINED_CAPTION: dict[str, Any] = {"method": "beam", "num_beams": 3, "min_tokens": 1, "max_tokens": 64}
"""How a pre-trained checkpoint generates, as it records no settings; like `VisionLanguageModel.generate`."""


class TrainedModel:
    """A checkpoint that is ready to use; `load_model` makes one.

    Methods raise ValueError if the checkpoint was not trained for them, or if a video cannot be read.

    Attributes:
        config: the settings in use.
        model, tokenizer: the modules themselves, folded for inference.
        abilities: the methods that work.
        tell: is told in words how far videos are read and encoded.
    """

    def __init__(self, task: VideoTextTask, checkpoint: Checkpoint, precision: Precision) -> None:
        self.task, self.checkpoint, self.precision = task, checkpoint, precision
        self.source = checkpoint.source
        self.config, self.device = task.config, task.device
        self.model, self.tokenizer = task.model, task.tokenizer
        self.abilities = abilities_of(task.config)
        self.tell: Callable[[str], None] = lambda words: None

    def encode_video(
        self,
        videos: Video | Sequence[Video],
        start: Seconds = None,
        end: Seconds = None,
        *,
        return_tokens: bool = False,
    ) -> Tensor | VideoFeatures:
        """Embeddings (V, E), unit length, float32, on the CPU; (E,) for a single path. An image is a still video.

        `start` and `end` choose a part, in seconds; for a list of videos, one number for all or a list with a number or
        None for each. `return_tokens` adds the tokens, (V, N, D) or (N, D), that matching and decoders attend to; the
        rows of videos that keep fewer than others end in zeros.
        """
        self._require("encode_video")
        embeddings, tokens = [], []
        for _, clips in self._clips(videos, start, end):
            if not return_tokens:
                embeddings.append(self.embeddings_of(clips).cpu())
                continue
            features = self.encode_clips(clips)
            assert features.embedding is not None
            embeddings.append(features.embedding.cpu())
            tokens.append(features.tokens.cpu())

        first = 0 if isinstance(videos, Video) else slice(None)
        embedding = torch.cat(embeddings)[first]
        return VideoFeatures(joined_rows(tokens)[first], embedding) if return_tokens else embedding

    def encode_windows(
        self,
        video: Video,
        window: float,
        stride: float | None = None,
        start: float | None = None,
        end: float | None = None,
    ) -> VideoWindows:
        """Embeddings of a long video, or of a part of it, and of windows over it, so that a moment can be found.

        Windows of `window` seconds begin each `stride` seconds, by default one after the other. Together they cover the
        video: the last one ends with it and may be shorter. A video that fits into a window is its only window.
        ValueError if the stride leaves gaps, or if the video does not say how long it is.
        """
        windows = Windows(window, window if stride is None else stride)
        last = duration_of(video) if end is None else end
        spans = list(windows.spans(start or 0.0, last))
        starts, ends = [first for first, _ in spans], ends_read(spans, end)

        embeddings = self.encode_video([video] * (1 + len(spans)), [start, *starts], [end, *ends])
        assert isinstance(embeddings, Tensor)
        if not spans:
            return VideoWindows(embeddings[0], embeddings, torch.tensor([[start or 0.0, last]], dtype=torch.float64))
        return VideoWindows(embeddings[0], embeddings[1:], torch.tensor(spans, dtype=torch.float64))

    def encode_text(self, texts: str | Sequence[str]) -> Tensor:
        """Embeddings (P, E), unit length, float32, on the CPU; (E,) for a single text."""
        self._require("encode_text")
        with self.computing():
            rows = [self.model.encode_text(*part).embedding.cpu() for part in self._tokenized(texts)]
        return torch.cat(rows)[0 if isinstance(texts, str) else slice(None)]

    def classify(
        self,
        videos: Video | Sequence[Video],
        classes: Sequence[str] | None = None,
        start: Seconds = None,
        end: Seconds = None,
        *,
        prompts: str | Sequence[str] | None = None,
        most: int = 5,
    ) -> list[FoundClass] | list[list[FoundClass]]:
        """The `most` probable classes of each video; one list for a single path. Times are as in `encode_video`.

        A checkpoint with a head knows its classes. Any other takes `classes`, put into the templates `prompts` (with
        `{}` for the class; several are averaged), by default `evaluation.prompts` or "a person {}".
        """
        self._require("classify")
        classify, evaluation = classifier(self, classes, prompts), evaluation_of(self.config)
        views = []
        with self.computing():
            for positions, clips in self._clips(videos, start, end, windows_of(evaluation)):
                views += embed_clips(self.task, positions, clips.to(self.device), evaluation)
        found = best(*classify(in_order(views)), most)
        return found[0] if isinstance(videos, Video) else found

    def words_read(self, text: str, *, question: bool = False) -> tuple[int, int]:
        """How many words of a text the model reads, and how many the text has.

        Every limit counts: `data.max_words`, `data.max_tokens`, the text encoder's positions, and for a question its
        own limits. The last word may be read in part.
        """
        clean, max_tokens = clean_up(self.config), question_tokens(self.config) if question else None
        ends = [word.end() for word in re.finditer(r"\S+", text)]

        def ids_of(part: str) -> list[int]:
            ids, mask = self.task.tokenize([clean(part)], max_tokens)
            return ids[mask.bool()].tolist()

        # Binary search for the shortest prefix with the whole text's ids; the rest was cut, or removed by cleaning.
        all_ids = ids_of(text)
        fewest = bisect_left(ends, True, key=lambda end: ids_of(text[:end]) == all_ids)
        rest = text[ends[fewest] :]
        return (fewest + 1 if clean(rest).strip() else len(ends)), len(ends)

    def match(
        self,
        video: Video | EncodedTokens,
        texts: str | Sequence[str],
        start: float | None = None,
        end: float | None = None,
    ) -> Match | list[Match]:
        """Ask the matching head whether each text describes the video, which may be encoded already."""
        self._require("match")
        if isinstance(video, EncodedTokens):
            tokens = video.tokens
        else:
            clip = self._read(video, start, end)
            with self.computing():
                tokens = clip_tokens(self.model, clip.to(self.device))[0]
        logits = self.match_logits(tokens, texts)
        pairs = zip(logits[:, 1].tolist(), logits.softmax(dim=1)[:, 1].tolist(), strict=True)
        matches = [Match(*pair) for pair in pairs]
        return matches[0] if isinstance(texts, str) else matches

    def match_logits(self, encoded: EncodedTokens | Tensor, texts: str | Sequence[str]) -> Tensor:
        """The logits (P, 2) of no match and match of each text with an encoded video, float32, on the CPU.

        The video may be its tokens (N, D). Texts get the share of them that evaluation reranks with.
        """
        self._require("match")
        tokens_ND = encoded.tokens if isinstance(encoded, EncodedTokens) else encoded
        tokens = tokens_ND.unsqueeze(0).to(self.device)
        some = TokenShare.of(self.config.evaluation)
        with self.computing():
            logits = [match_share(self.model, tokens, *part, some) for part in self._tokenized(texts)]
            return torch.cat(logits).float().cpu()

    def answer(
        self,
        video: Video,
        questions: str | Sequence[str],
        start: float | None = None,
        end: float | None = None,
        *,
        answers: Sequence[str] | None = None,
    ) -> str | list[str]:
        """The answer to each question about a video; the video is encoded once.

        The answers from training are ranked, or the given `answers`; with evaluation.inference=generate the decoder
        writes the answer.
        """
        self._require("answer")
        task = self.task
        assert isinstance(task, VqaTask)
        listed = self._answers(answers)
        clip = self._read(video, start, end)
        with self.computing():
            tokens = clip_tokens(self.model, clip.to(self.device))
            batches = list(self._tokenized(questions, task.question_tokens))
            states = padded([self.model.ground_text(tokens, ids, mask) for ids, mask in batches])
            given = task.answers_to(states, padded([mask for _, mask in batches]), listed)
        return given[0] if isinstance(questions, str) else given

    def caption(self, videos: Video | Sequence[Video], start: Seconds = None, end: Seconds = None) -> str | list[str]:
        """A caption for each video, generated as the `evaluation` section says; `start` and `end` as in `encode_video`.

        Nucleus sampling depends on the seed and on the video's position in the list.
        """
        self._require("caption")
        written: list[str] = []
        for positions, clips in self._clips(videos, start, end):
            with self.computing():
                ids = self._written_ids(positions, clip_tokens(self.model, clips.to(self.device)))
            written += self.tokenizer.written(ids)
        return written[0] if isinstance(videos, Video) else written

    def encode_tokens(self, video: Video, start: float | None = None, end: float | None = None) -> EncodedTokens:
        """The tokens of one video, with the cells that each token holds and the frames that were encoded."""
        clip = self._read(video, start, end)
        with self.computing():
            encoded = self.model.trace_video(clip.pixels.to(self.device))
        assert encoded.origins is not None
        frames = clip.pixels[0]
        return EncodedTokens(encoded.tokens[0].cpu(), encoded.size[0].cpu(), encoded.origins[0].cpu(), frames)

    def encode_pixels(self, video_BTCHW: Tensor) -> PixelFeatures:
        """Encode frames from `read_video`, uint8 (B, T, 3, H, W); the result stays on the device."""
        return self.encode_clips(Clip.of_pixels(video_BTCHW))

    def encode_clips(self, clips: Clip) -> PixelFeatures:
        """Encode clips, with what goes along with them; the result stays on the device."""
        clips = clips.to(self.device, non_blocking=True)
        with self.computing():
            if "encode_video" not in self.abilities:
                return PixelFeatures(clip_tokens(self.model, clips), None)
            features = encode_clip(self.model, clips)
            return PixelFeatures(features.tokens, features.embedding)

    def embeddings_of(self, clips: Clip) -> Tensor:
        """The embeddings (B, E) alone of clips, which some models make in less time; they stay on the device."""
        self._require("encode_video")
        with self.computing():
            return embed_clip(self.model, clips.to(self.device, non_blocking=True))

    def read_video(self, video: Video, start: float | None = None, end: float | None = None) -> Tensor:
        """The frames (T, 3, H, W), uint8, that the encoder gets from a video, an image, or a part of a video."""
        return self._read(video, start, end).pixels[0]

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Compute as in training's evaluation: in the same precision, without gradients."""
        with torch.no_grad(), autocast(self.device, self.precision):
            yield

    def _read(self, video: Video, start: float | None, end: float | None) -> Clip:
        """A video as a batch of one clip."""
        return next(self._clips(video, start, end))[1]

    def _clips(
        self, videos: Video | Sequence[Video], start: Seconds, end: Seconds, sliding: SlidingWindows | None = None
    ) -> Iterator[tuple[list[int], Clip]]:
        """Positions and clips on the CPU, batch by batch; several clips a video where windows slide over it."""
        data = video_text(self.config, records_of(videos, start, end), training=False, windows=sliding)
        parts = [range(len(data))[first : first + VIDEOS_AT_ONCE] for first in range(0, len(data), VIDEOS_AT_ONCE)]
        with closing(FileProgress(len(data), "videos or parts", is_main(), self.tell)) as progress:
            data.watch(OwnLine(progress.reading))
            for part in parts:
                batch = collate(data.__getitems__(part))
                for failure in batch["failed"]:
                    raise ValueError(f"{failure['video']}: cannot be read ({failure['reason']}); give another file")
                progress.encoding(batch["names"])
                yield batch["index"].tolist(), batch["clip"]
                progress.advance(len(part))

    def _tokenized(self, texts: str | Sequence[str], max_tokens: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Ids and mask of the texts, cleaned as in training, in batches."""
        given = [texts] if isinstance(texts, str) else list(texts)
        check_texts(given, "text")
        clean = clean_up(self.config)
        cleaned = [clean(text) for text in given]
        for first in range(0, len(cleaned), TEXTS_AT_ONCE):
            yield self.task.tokenize(cleaned[first : first + TEXTS_AT_ONCE], max_tokens)

    def _answers(self, given: Sequence[str] | None) -> AnswerList | None:
        """The answers to rank; None if the decoder writes them."""
        task = self.task
        assert isinstance(task, VqaTask)
        if task.evaluation.inference == "generate":
            if given is not None:
                raise ValueError("answers: have no effect with evaluation.inference generate, which writes them")
            return None
        if given is None:
            return self._trained_answers
        if not given:
            raise ValueError("answers: none are given to rank; give at least one")
        check_texts(given, "answer")
        return task.answer_list(list(given))

    @cached_property
    def _trained_answers(self) -> AnswerList:
        assert isinstance(self.task, VqaTask)
        return self.task.answer_list(list(self.task.known_answers()))

    def _written_ids(self, positions: list[int], tokens: Tensor) -> Tensor:
        """Ids (B, S) of a caption for each video of a batch."""
        if not isinstance(self.task, CaptionTask):
            most = min(PRETRAINED_CAPTION["max_tokens"], self.config.model.text.max_positions)
            settings = {**PRETRAINED_CAPTION, "max_tokens": most}
            noise = None
        else:
            settings = self.task.generation()
            noise = self.task.noise(positions, settings["max_tokens"]) if settings["method"] == "nucleus" else None
        way = {name: value for name, value in settings.items() if name != "method"}
        return self.model.generate(tokens, noise=noise, **way)

    def _require(self, ability: str) -> None:
        if ability not in self.abilities:
            raise ValueError(
                f"{self.source}: a checkpoint of {self.config.task} cannot {ability}, only "
                f"{', '.join(self.abilities)}; load {CAN_DO[ability]}"
            )

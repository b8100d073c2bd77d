"""Evaluating retrieval as TESTA's released code does, in plain lines: what ours is timed against.

A pair is scored for each direction that has it on its shortlist; the video's tokens are repeated for every text, and
projected again in every call. Texts are padded to one length, and all tokens, and the scores of all texts and videos,
are kept in memory.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.naive_encoder import NaiveEncoder
from benchmarks.naive_text import NaiveText
from configs.models.testa import as_testa
from datasets.video_text import VideoTextDataset
from engine.precision import autocast, resolve_precision
from models.parts.pixels import normalise_pixels
from models.parts.tokenizer import with_first
from tasks.data import video_text
from tasks.retrieval import RetrievalTask

PAIRS_AT_ONCE, TEXTS_AT_ONCE = 16, 256


class NaiveEvaluation:
    """The recalls of a task's test set as the released code finds them."""

    def __init__(self, task: RetrievalTask) -> None:
        config, model = task.config, task.model
        sizes = as_testa(config.model)
        self.task = task
        self.encoder = NaiveEncoder(sizes, config.video, config.aggregation).eval().to(task.device)
        self.encoder.load_state_dict(model.visual_encoder.state_dict())
        self.tower = NaiveText(sizes.text, sizes.width).eval().to(task.device)
        self.tower.load_state_dict(model.text_encoder.state_dict())

    def __call__(self) -> dict[str, float]:
        """`t2v_r1`, ..., `v2t_r10`."""
        task = self.task
        precision = resolve_precision(task.config.train.precision, task.device)
        with torch.no_grad(), autocast(task.device, precision):
            data = video_text(task.config, task.evaluated(final=True).present, training=False)
            ids, mask = task.tokenize(data.captions)
            batches = zip(ids.split(TEXTS_AT_ONCE), mask.split(TEXTS_AT_ONCE), strict=True)
            texts = torch.cat([self._embed(*batch) for batch in batches])
            tokens, videos = self._encode_videos(data)
            cosine = texts @ videos.T
            t2v, v2t = torch.full_like(cosine, -100.0), torch.full_like(cosine.T, -100.0)
            most = task.evaluation.rerank
            for video, row in enumerate(cosine.T):
                for chosen in row.topk(min(most, len(row))).indices.split(PAIRS_AT_ONCE):
                    repeated = tokens[video].to(task.device).repeat(len(chosen), 1, 1)
                    v2t[video, chosen] = self._match(repeated, ids[chosen], mask[chosen]) + row[chosen]

            for text, row in enumerate(cosine):
                for chosen in row.topk(min(most, len(row))).indices.split(PAIRS_AT_ONCE):
                    of_videos = torch.stack([tokens[video] for video in chosen.tolist()]).to(task.device)
                    own = [part[text].repeat(len(chosen), 1) for part in (ids, mask)]
                    t2v[text, chosen] = self._match(of_videos, *own) + row[chosen]

        relevant = torch.tensor(data.caption_video)[:, None] == torch.arange(len(videos))
        return _recalls(t2v.cpu(), relevant, "t2v") | _recalls(v2t.cpu(), relevant.T, "v2t")

    def _embed(self, ids: Tensor, mask: Tensor) -> Tensor:
        return F.normalize(self.task.model.text_proj(self.tower(ids, mask)[:, 0]).float(), dim=-1)

    def _encode_videos(self, data: VideoTextDataset) -> tuple[list[Tensor], Tensor]:
        """Tokens (1 + N, D) of each video, in memory, and embeddings (V, E)."""
        encoder, model = self.task.model.visual_encoder, self.task.model
        tokens, embeddings = [], []
        for _, pixels in self.task.each_video(data, self.task.evaluation.batch_size, []):
            pixels = normalise_pixels(pixels, encoder.pixel_mean, encoder.pixel_std, torch.float32)
            encoded = self.encoder(pixels)
            tokens += list(encoded.cpu())
            embeddings.append(F.normalize(model.vision_proj(encoded.mean(dim=1)).float(), dim=-1))
        return tokens, torch.cat(embeddings)

    def _match(self, tokens_PND: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        grounded = self.tower(with_first(ids, self.task.model.enc_token_id), mask, tokens_PND)
        return self.task.model.itm_head(grounded[:, 0])[:, 1].float()


def _recalls(scores: Tensor, relevant: Tensor, direction: str) -> dict[str, float]:
    """Of the place of each query's best relevant candidate in a sort of scores (Q, N)."""
    order = scores.argsort(dim=1, descending=True)
    ranks = 1 + relevant.gather(1, order).int().argmax(dim=1)
    return {f"{direction}_r{most}": 100 * float((ranks <= most).double().mean()) for most in (1, 5, 10)}

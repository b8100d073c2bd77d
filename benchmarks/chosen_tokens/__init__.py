"""Reranking with a share of each video's tokens (`evaluation.rerank_tokens`): what it saves, and what it loses."""

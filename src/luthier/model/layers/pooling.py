"""Hidden states -> one vector for each leaf: of the text from the root of its tree down to its end.

last   the state of the last token          first   that of the first (the [CLS] of BERT)
mean   the mean over all its tokens, those of shared beginnings and prompts included
"""

from __future__ import annotations

from bisect import bisect_right

import torch

from luthier.core.types.batch import Batch, Pool
from luthier.model.layers.vocabulary import wide


def pooled(hidden: torch.Tensor, batch: Batch, pool: Pool) -> torch.Tensor:
    """hidden [T, H] -> [L, H], in float32 or wider. Lengths are left as they are: what compares vectors scales them."""
    texts = paths(batch)
    if pool != "mean":
        ends = [batch.node_start[path[-1]] if pool == "first" else batch.node_start[path[0] + 1] - 1 for path in texts]
        return hidden[torch.tensor(ends, dtype=torch.int64, device=hidden.device)].to(wide(hidden.dtype))
    sizes = [end - start for start, end in zip(batch.node_start, batch.node_start[1:], strict=False)]
    sums = torch.stack([part.sum(0, dtype=wide(hidden.dtype)) for part in hidden.split(sizes)])
    share = sums.new_zeros(len(texts), len(sizes))
    for leaf, path in enumerate(texts):
        share[leaf, path] = 1 / sum(sizes[node] for node in path)
    return share @ sums


def paths(batch: Batch) -> list[list[int]]:
    """The nodes of each leaf's path, leaf first. An empty leaf ends where its parent does."""
    paths = []
    for end in batch.leaf_end.tolist():
        path = [bisect_right(batch.node_start, end) - 1]
        while (above := batch.node_parent[path[-1]]) >= 0:
            path.append(above)
        paths.append(path)
    return paths

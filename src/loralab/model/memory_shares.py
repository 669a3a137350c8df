"""The memory of rows that go through the model side by side, each on a thread of its own."""

from collections import Counter
from dataclasses import replace

import torch

from loralab.data.shares import share_documents
from loralab.model.memory_request import ACTIVATIONS, GRADIENTS, LOGITS, WORKSPACE, MemoryRequest
from loralab.optim.state_size import FLOAT32_BYTES


def largest_share(request: MemoryRequest) -> tuple[MemoryRequest, int]:
    """Returns the request of the share with the most tokens, and how many shares there are.

    Args:
        request: Of a model that keeps documents apart.
    """
    documents = request.documents or request.lengths
    shares = share_documents(documents, request.threads) if documents else []
    if documents is None or len(shares) <= 1:
        return request, 1
    taken = max((tuple(documents[place] for place in share) for share in shares), key=sum)
    supervised = -(-request.num_supervised * sum(taken) // sum(documents))
    share = replace(request, num_supervised=max(1, supervised), threads=1)
    if request.documents is None:
        return replace(share, rows=len(taken), lengths=taken), len(shares)
    return replace(share, rows=1, width=sum(taken), documents=taken), len(shares)


def side_by_side(parts: Counter[str], num_shares: int, dtype: torch.dtype) -> Counter[str]:
    """Returns what several shares take at the same stage, of which one takes `parts`.

    Each holds gradients of its own in the compute dtype, workspace until they are added up in float32.
    """
    if num_shares == 1:
        return parts
    own_gradients = parts[GRADIENTS] * dtype.itemsize // FLOAT32_BYTES
    return Counter(
        {
            ACTIVATIONS: num_shares * parts[ACTIVATIONS],
            LOGITS: num_shares * parts[LOGITS],
            WORKSPACE: num_shares * (parts[WORKSPACE] + own_gradients),
        }
    )

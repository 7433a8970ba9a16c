"""SCD-Net's pre-training: momentum encoder, queues of keys, cross-domain contrast with a global anchor."""

import copy
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.decoder import PretrainingEncoder
from model.encoder import Encoder

DOMAINS = ("t", "s", "i")
PAIRS = ("ti", "si", "it", "is")  # query's domain, key's domain


def _alone(keys: Tensor) -> Tensor:
    return keys


class SCDNet(nn.Module):
    """Contrasts the domains of two views: L = nce(z_t, k_i) + nce(z_s, k_i) + nce(z_i, k_t) + nce(z_i, k_s).

    Args:
        encoder: an `Encoder` or its arguments.
        dim: size of the embeddings.
        K: keys in each queue; a multiple of the batch.
        m: momentum of the key encoder.
        T: temperature.
        pairs: of domains, the query's and the key's, that are contrasted; others than the paper's are ablations.
        gather: returns the rows of all processes, in one order, of a process's (N, ...): its keys enter every queue.

    Raises:
        ValueError: a pair that is none, or given twice; sizes that do not fit together.
    """

    queue_pointer: Tensor  # (1,) int, the column of each queue that the next keys enter

    def __init__(
        self,
        encoder: Encoder | dict,
        dim: int = 128,
        K: int = 8192,
        m: float = 0.999,
        T: float = 0.2,
        pairs: Sequence[str] = PAIRS,
        gather: Callable[[Tensor], Tensor] = _alone,
    ):
        super().__init__()
        for pair in pairs:
            if len(pair) != 2 or not set(pair) <= set(DOMAINS) or list(pairs).count(pair) > 1:
                raise ValueError(f"pair {pair!r}: give two letters of {', '.join(DOMAINS)}, and each pair once")
        self.K, self.m, self.T, self.pairs, self.gather = K, m, T, tuple(pairs), gather
        encoder = Encoder(**encoder) if isinstance(encoder, dict) else encoder
        self.sizes = dict(encoder=encoder.sizes, dim=dim, K=K)
        self.encoder_q = PretrainingEncoder(encoder, dim)
        self.encoder_k = copy.deepcopy(self.encoder_q).requires_grad_(False)
        for domain in DOMAINS:
            self.register_buffer(f"queue_{domain}", F.normalize(torch.randn(dim, K), dim=0))
        self.register_buffer("queue_pointer", torch.zeros(1, dtype=torch.long))

    @property
    def queues(self) -> dict[str, Tensor]:
        """The keys of each domain, (dim, K), normalised over dim; the buffers themselves."""
        return {domain: getattr(self, f"queue_{domain}") for domain in DOMAINS}

    def forward(self, q: Tensor, k: Tensor) -> dict[str, Tensor]:
        """Return the logits (N, 1 + K) of each pair, positive at 0; in training also move the key encoder and the queues.

        Args:
            q: first view, (N, 3, T, V, M), metres.
            k: second view, same shape.

        Raises:
            ValueError: in training, K is not a multiple of N.
        """
        if self.training and self.K % len(q):
            raise ValueError(f"K = {self.K} is not a multiple of the batch of {len(q)}")
        queries = dict(zip(DOMAINS, map(_normalise, self.encoder_q(q)), strict=True))
        with torch.no_grad():
            if self.training:
                self.update_key_encoder()
            keys = dict(zip(DOMAINS, map(_normalise, self.encoder_k(k)), strict=True))
            # Copies: the enqueueing below must not change what the backward pass will read.
            queues = {domain: queue.clone() for domain, queue in self.queues.items()}
        logits = {pair: self.logits(queries[pair[0]], keys[pair[1]], queues[pair[1]]) for pair in self.pairs}
        if self.training:
            rows = self.gather(torch.cat([keys[domain] for domain in DOMAINS], dim=1))  # (world * N, 3 * dim)
            self.enqueue(dict(zip(DOMAINS, rows.chunk(3, dim=1), strict=True)))
        return logits

    def logits(self, q: Tensor, k: Tensor, queue: Tensor) -> Tensor:
        """Return [q . k, q . queue] / T, (N, 1 + K), of q and k (N, dim) and queue (dim, K), all normalised."""
        positive = (q * k).sum(dim=1, keepdim=True)  # (N, 1)
        with torch.autocast(q.device.type, enabled=False):  # float32 whatever the encoders calculate in
            return torch.cat([positive, q @ queue], dim=1) / self.T

    @staticmethod
    def loss(logits: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the InfoNCE of each pair, a scalar: cross-entropy against index 0. Their sum is the training loss."""
        return {pair: F.cross_entropy(x, x.new_zeros(len(x), dtype=torch.long)) for pair, x in logits.items()}

    @torch.no_grad()
    def update_key_encoder(self) -> None:
        """Move the key encoder's parameters: k = m k + (1 - m) q. Its BatchNorm statistics are its own."""
        keys, queries = tuple(self.encoder_k.parameters()), tuple(self.encoder_q.parameters())
        torch._foreach_mul_(keys, self.m)
        torch._foreach_add_(keys, queries, alpha=1 - self.m)

    @torch.no_grad()
    def enqueue(self, keys: dict[str, Tensor]) -> None:
        """Replace the oldest keys of each queue by `keys`, each (N, dim) and normalised."""
        n = len(keys["t"])
        columns = (self.queue_pointer + torch.arange(n, device=self.queue_pointer.device)) % self.K  # (N,)
        for domain, queue in self.queues.items():
            queue.index_copy_(1, columns, keys[domain].T.to(queue.dtype))
        self.queue_pointer.add_(n).remainder_(self.K)


def _normalise(z: Tensor) -> Tensor:
    return F.normalize(z.to(torch.promote_types(z.dtype, torch.float32)), dim=1)  # float32 under autocast too

"""SCD-Net's pre-training: momentum encoder, queues of keys, cross-domain contrast with a global anchor."""

import contextlib
import copy
from collections.abc import Sequence

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from model.decoder import Decoder
from model.encoder import Encoder

DOMAINS = ("t", "s", "i")  # temporal, spatial, and the global anchor, which is made of both
PAIRS = ("ti", "si", "it", "is")  # domain of the query, domain of the key: "ti" contrasts z_t with k_i


class PretrainingEncoder(nn.Module):
    """An encoder with its disentangling decoders; `SCDNet` has two, the query and the key encoder."""

    def __init__(self, encoder: Encoder, dim: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = Decoder(encoder.sizes["hidden_size"], dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return z_t, z_s, z_i, each (N, dim) and not normalised, of clips x (N, 3, T, V, M) in metres."""
        return self.decoder(*self.encoder(x))


class SCDNet(nn.Module):
    """Contrast the domains of two views: L = nce(z_t, k_i) + nce(z_s, k_i) + nce(z_i, k_t) + nce(z_i, k_s).

    z_* are the query encoder's embeddings of view q, k_* the key encoder's embeddings of view k. The key
    encoder's weights follow the query encoder's by momentum; view k is never the query. nce is the
    cross-entropy of [z . k, z . queue] / T, where the queue holds the last K keys.

    Args:
        encoder: an `Encoder` or its arguments.
        dim: size of the embeddings.
        K: number of keys in each queue, a multiple of the batch size.
        m: momentum of the key encoder.
        T: temperature.
        pairs: domain of the query and of the key of each loss term; pairs other than the paper's four are
            ablations.
    """

    queue_pointer: Tensor  # (1,) int, the first column that the next keys replace

    def __init__(
        self,
        encoder: Encoder | dict,
        dim: int = 128,
        K: int = 8192,
        m: float = 0.999,
        T: float = 0.2,
        pairs: Sequence[str] = PAIRS,
    ) -> None:
        super().__init__()
        known = {query + key for query in DOMAINS for key in DOMAINS}
        if not pairs or not set(pairs) <= known or len(set(pairs)) < len(pairs):
            raise ValueError(
                f"pairs {' '.join(pairs) or '(none)'}: list each pair once, out of {' '.join(sorted(known))}"
            )
        self.K, self.m, self.T, self.pairs = K, m, T, tuple(pairs)
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
        """Return logits (N, 1 + K) of each pair, positive at 0; in training, update key encoder and queues.

        Args:
            q: first view, (N, 3, T, V, M) in metres.
            k: second view, same shape.

        Raises:
            ValueError: in training, K is not a multiple of the batch of all processes.
        """
        batch = len(q) * (dist.get_world_size() if dist.is_initialized() else 1)
        if self.training and self.K % batch:
            raise ValueError(f"K = {self.K} is not a multiple of the batch of {batch}")
        # keys first, before the activations of the queries use memory
        with torch.no_grad():
            if self.training:
                self.update_key_encoder()
            keys = self.embed(self.encoder_k, k)  # {"t", "s", "i"}: (N, dim)
        # queries
        queries = self.embed(self.encoder_q, q)
        # logits with copies of the queues: `enqueue` overwrites the queues before backward reads them
        queues = {domain: queue.clone() for domain, queue in self.queues.items()}
        logits = {pair: self.logits(queries[pair[0]], keys[pair[1]], queues[pair[1]]) for pair in self.pairs}
        if self.training:
            self.enqueue(keys)
        return logits

    @staticmethod
    def embed(encoder: nn.Module, x: Tensor) -> dict[str, Tensor]:
        """Return the embeddings of each domain, (N, dim), L2-normalised in at least float32."""
        embeddings = (z if z.dtype == torch.float64 else z.float() for z in encoder(x))
        return {domain: F.normalize(z, dim=1) for domain, z in zip(DOMAINS, embeddings, strict=True)}

    def logits(self, z: Tensor, key: Tensor, queue: Tensor) -> Tensor:
        """Return [z . key, z . queue] / T, (N, 1 + K), of z and key (N, dim) and queue (dim, K)."""
        positive = (z * key).sum(dim=1, keepdim=True)  # (N, 1)
        device_type = z.device.type
        # float32 even with --precision bf16; "meta" has no autocast state
        active = torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type)
        with torch.autocast(device_type, enabled=False) if active else contextlib.nullcontext():
            negative = z @ queue.to(z.dtype)  # (N, K)
        return torch.cat([positive, negative], dim=1) / self.T

    @staticmethod
    def loss(logits: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the InfoNCE loss of each pair, cross-entropy against index 0; the loss is their sum."""
        return {pair: F.cross_entropy(x, x.new_zeros(len(x), dtype=torch.long)) for pair, x in logits.items()}

    @torch.no_grad()
    def update_key_encoder(self) -> None:
        """Update the key encoder, k = m k + (1 - m) q; parameters only, not BatchNorm statistics."""
        torch._foreach_lerp_(list(self.encoder_k.parameters()), list(self.encoder_q.parameters()), 1 - self.m)

    @torch.no_grad()
    def enqueue(self, keys: dict[str, Tensor]) -> None:
        """Replace the oldest keys of each queue by `keys` (N, dim) of all processes, in rank order."""
        rows = _gather(torch.cat([keys[domain] for domain in DOMAINS], dim=1))  # (world_size * N, 3 * dim)
        steps = torch.arange(len(rows), device=rows.device)
        columns = (self.queue_pointer + steps) % self.K  # (world_size * N,)
        for domain, new in zip(DOMAINS, rows.chunk(3, dim=1), strict=True):
            self.queues[domain].index_copy_(1, columns, new.T.to(self.queues[domain].dtype))
        self.queue_pointer.add_(len(rows)).remainder_(self.K)


def _gather(x: Tensor) -> Tensor:
    """Return the rows of all processes in rank order, (world_size * N, ...), of each process's x (N, ...)."""
    if not dist.is_initialized():
        return x
    parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, x)
    return torch.cat(parts)

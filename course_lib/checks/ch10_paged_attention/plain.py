"""Plain PyTorch ways to paged attention: each request's keys are copied out of the blocks, and chapter 05's plain ways do the rest."""

import torch
from torch import Tensor

from course_lib.checks.ch05_flash_forward.plain import CAUSAL, FULL
from course_lib.checks.ch10_paged_attention.slots import gathered


def _own(cache: Tensor, table: Tensor, length: int) -> Tensor:
    """[1, H_KV, length, D]"""
    return gathered(cache, table, length).transpose(0, 1)[None]


def _decoding(way):
    def decode(q, k_cache, v_cache, block_tables, lengths, scale=None, v_apart=False):
        out = torch.zeros_like(q)
        for b, n in enumerate(lengths.tolist()):
            if n:
                out[b] = way(q[b][None, :, None], _own(k_cache, block_tables[b], n), _own(v_cache, block_tables[b], n), scale)[0, :, 0]
        return out

    return decode


def _prefilling(way):
    def prefill(q, k_cache, v_cache, block_tables, cu_q, lengths, max_q, scale=None, v_apart=False):
        out = torch.zeros_like(q)
        for b, n in enumerate(lengths.tolist()):
            first, last = int(cu_q[b]), int(cu_q[b + 1])
            if last > first:
                mine = q[first:last].transpose(0, 1)[None]
                out[first:last] = way(mine, _own(k_cache, block_tables[b], n), _own(v_cache, block_tables[b], n), scale)[0].transpose(0, 1)
        return out

    return prefill


DECODES = tuple(_decoding(way) for way in FULL)
PREFILLS = tuple(_prefilling(way) for way in CAUSAL)

"""The state of an online softmax, as the whole course passes it around."""

from typing import NamedTuple

from torch import Tensor


class SoftmaxState(NamedTuple):
    """What one pass over some keys leaves behind, for every row.

    row_max [...]     the largest score seen, -inf when no key was seen (the paper's m)
    row_sum [...]     the sum of exp(score - row_max) over the keys seen (the paper's l)
    acc     [..., D]  the sum of exp(score - row_max) * value over the keys seen, not yet divided (the paper's O)

    Source: Milakov and Gimelshein 2018 (row_max, row_sum); FlashAttention, Algorithm 1 (acc), kept unnormalised
    until the end as in FlashAttention-2, section 3.1.
    """

    row_max: Tensor
    row_sum: Tensor
    acc: Tensor

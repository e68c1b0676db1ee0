"""Chapter 01: The memory hierarchy.

Generated from solutions/ch01_memory_hierarchy.py by `make sync`: the exercises as nobody has touched them yet.
You may edit this file. `course check NAME` takes an edited exercise over into answers/, where your work is kept.
"""


# %% exercise arithmetic_intensity | core | 8 minutes | 2 points | model
def arithmetic_intensity(m: int, n: int, k: int, bytes_each: int = 2) -> float:
    """FLOPs per byte of the matrix product [m, k] @ [k, n] -> [m, n].

    m, n, k      the sizes, whole numbers of at least 1
    bytes_each   bytes of one element of any of the three matrices: 2 for fp16, 4 for fp32
    returns      FLOPs divided by bytes, a float

    FLOPs: each element of the result takes k multiplications and k additions.
    Bytes: each of the three matrices is moved once.

    Example: arithmetic_intensity(2, 3, 4) is 48 FLOPs / 52 bytes = 0.923.
    Source: Williams, Waterman and Patterson 2009, Roofline (there: operational intensity).
    """
    raise NotImplementedError("arithmetic_intensity (chapter 01) is not written yet")


# %% exercise roofline_time | core | 5 minutes | 1 point | model
def roofline_time(flops: float, bytes_moved: float, peak_flops: float, bandwidth: float) -> float:
    """The least seconds an operator can take, arithmetic and data movement fully overlapped.

    flops         floating-point operations to be done; 0 for a copy
    bytes_moved   bytes to be moved between memory and chip
    peak_flops    FLOP/s of the machine
    bandwidth     bytes/s of its memory
    returns       seconds, a float

    Example: 6e12 FLOPs and 1e12 bytes on a machine of 3e12 FLOP/s and 2e12 bytes/s take 2 seconds.
    Source: Williams, Waterman and Patterson 2009, Roofline, read as a time.
    """
    raise NotImplementedError("roofline_time (chapter 01) is not written yet")


# %% exercise classify_bound | core | 8 minutes | 2 points | model
def classify_bound(
    m: int, n: int, k: int, bytes_each: int, peak_flops: float, bandwidth: float
) -> str:
    """What the matrix product [m, k] @ [k, n] waits for on a machine: "memory" or "compute".

    m, n, k, bytes_each   as in `arithmetic_intensity`
    peak_flops            FLOP/s of the machine
    bandwidth             bytes/s of its memory
    returns               "memory" where the bytes take longer than the FLOPs, else "compute"

    Example: one row times a 4,096 x 4,096 matrix in fp16 on an A100 (312e12, 2.039e12) is "memory".
    Source: Williams, Waterman and Patterson 2009, Roofline (the ridge point).
    """
    raise NotImplementedError("classify_bound (chapter 01) is not written yet")


# %% exercise fusion_bytes | core | 12 minutes | 3 points | model
def fusion_bytes(elements: int, extras: list[int], bytes_each: int = 2) -> tuple[int, int]:
    """Bytes moved by a chain of element-wise operators: one kernel each, and fused into one.

    elements     elements of the tensor that runs through the chain
    extras       one number an operator, at least one: elements of what it reads besides that tensor
                 (0 for GELU; `elements` for adding a residual; D for adding a bias of D numbers)
    bytes_each   bytes of one element of any tensor
    returns      (separate, fused), two ints. Separate: every operator reads what the one before it
                 wrote, and writes a result of `elements` elements. Fused: what lies between
                 is never moved.

    Example: fusion_bytes(100, [10, 0, 100]) is (1420, 620).
    Source: Ivanov et al. 2021, Data Movement Is All You Need (element-wise operators, fused).
    """
    raise NotImplementedError("fusion_bytes (chapter 01) is not written yet")


# %% exercise largest_square_tile | more | 15 minutes | 3 points | model
def largest_square_tile(
    head_dim: int, shared_bytes: int, bytes_each: int = 2, score_bytes: int = 4
) -> int:
    """The largest tile size b for attention whose tiles all fit one thread block's shared memory.

    In shared memory lie: a tile each of Q, K and V, all [b, head_dim], `bytes_each` bytes an
    element; and their scores S [b, b], `score_bytes` bytes an element.

    head_dim       width of a head, d in the papers
    shared_bytes   bytes of shared memory that one block may have
    bytes_each     2 for fp16
    score_bytes    4 for fp32 scores in shared memory; 0 when S lives in registers
    returns        b, an int: the largest multiple of 16 that fits, 0 where not even 16 does

    Example: largest_square_tile(128, 65536) is 64 (a T4: 48 KiB of tiles, 16 KiB of scores).
    Source: FlashAttention, Algorithm 1, line 1 (block sizes from the size of SRAM), with S counted.
    """

    raise NotImplementedError("largest_square_tile (chapter 01) is not written yet")


# as generated: top 5d3cd71c0bf6, arithmetic_intensity 93ec63fa83d8, roofline_time 015a47b7e486, classify_bound a94446a5389a, fusion_bytes 113ea0d2df82, largest_square_tile a64f80ed973f

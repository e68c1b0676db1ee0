"""Chapter 01: The memory hierarchy.

The source of the chapter's exercises: statements, solutions, hints. `make sync` writes the stubs from it.
"""


# %% exercise arithmetic_intensity | core | 8 minutes | 2 points | model
# hint: How many multiplications and additions go into one element of the result, and how many elements are there?
# hint: FLOPs on top, bytes below. One element of the result takes k multiplications and k additions. The bytes are three matrices, each moved once: two are read and one is written.
# hint: flops = 2 * ...; bytes_moved = (m * k + ... + ...) * bytes_each; divide the first by the second.
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
    # solution
    flops = 2 * m * n * k
    bytes_moved = (m * k + k * n + m * n) * bytes_each
    return flops / bytes_moved
    # end


# %% exercise roofline_time | core | 5 minutes | 1 point | model
# hint: While one tile is being multiplied the next one can already be on its way. So what does the arithmetic have to wait for, at best?
# hint: Each of the two takes a time of its own: work divided by speed. Both run at once, and the operator is done when the slower one is.
# hint: max(flops / ..., bytes_moved / ...)
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
    # solution
    return max(flops / peak_flops, bytes_moved / bandwidth)
    # end


# %% exercise classify_bound | core | 8 minutes | 2 points | model
# hint: Which of two numbers belongs to the shape, and which to the machine? Both are FLOPs per byte.
# hint: The shape offers so many FLOPs with each byte that arrives. The machine can do so many in the time that a byte takes. Compare the two.
# hint: arithmetic_intensity(...) on one side, peak_flops / bandwidth on the other. If the shape offers less than the machine could do, the arithmetic waits.
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
    # solution
    intensity = 2 * m * n * k / ((m * k + k * n + m * n) * bytes_each)
    return "memory" if intensity < peak_flops / bandwidth else "compute"
    # end


# %% exercise fusion_bytes | core | 12 minutes | 3 points | model
# hint: Take the example's three operators and write down, one under the other, what each reads and what it writes.
# hint: On its own every operator reads its predecessor's result and writes its own: two trips an operator. Fused, the first input is read once and the last result written once. The extra inputs must come either way.
# hint: extra = sum(extras); separate = (2 * elements * ... + extra) * bytes_each; fused = (2 * elements + extra) * bytes_each
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
    # solution
    extra = sum(extras)
    separate = (2 * elements * len(extras) + extra) * bytes_each
    fused = (2 * elements + extra) * bytes_each
    return separate, fused
    # end


# %% exercise largest_square_tile | more | 15 minutes | 3 points | model
# hint: Which four things lie in shared memory at the same time, and which of them grow with b, which with b squared?
# hint: Three tiles of b rows of head_dim elements, and a tile of scores of b by b. Add up their bytes for b = 16, 32, 48 and so on, and stop before it no longer fits.
# hint: bytes of a tile size: 3 * b * head_dim * bytes_each + b * b * score_bytes. Start at b = 0 and add 16 while b + 16 still fits (exactly full is a fit).
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

    # solution
    def needed(b: int) -> int:
        return 3 * b * head_dim * bytes_each + b * b * score_bytes

    b = 0
    while needed(b + 16) <= shared_bytes:
        b += 16
    return b
    # end

"""matmul in other styles: each must pass."""

RIGHT = (
    """\
@triton.jit
def moving_pointers(a_ptr, b_ptr, c_ptr, M, N, K, sam, sak, sbk, sbn, scm, scn, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    pid = tl.program_id(0)
    across = tl.cdiv(N, BN)
    rm = (pid // across) * BM + tl.arange(0, BM)
    rn = (pid % across) * BN + tl.arange(0, BN)
    rk = tl.arange(0, BK)
    a_at = a_ptr + (rm[:, None] % M) * sam + rk[None, :] * sak
    b_at = b_ptr + rk[:, None] * sbk + (rn[None, :] % N) * sbn
    total = tl.zeros((BM, BN), dtype=tl.float32)
    for i in range(0, tl.cdiv(K, BK)):
        left = K - i * BK
        a = tl.load(a_at, mask=rk[None, :] < left, other=0.0)
        b = tl.load(b_at, mask=rk[:, None] < left, other=0.0)
        total += tl.dot(a, b, input_precision="ieee")
        a_at += BK * sak
        b_at += BK * sbk
    tl.store(c_ptr + rm[:, None] * scm + rn[None, :] * scn, total, mask=(rm[:, None] < M) & (rn[None, :] < N))

def matmul(a, b):
    M, K = a.shape
    _, N = b.shape
    c = torch.empty((M, N), device=a.device, dtype=a.dtype)
    grid = lambda meta: (triton.cdiv(M, meta["BM"]) * triton.cdiv(N, meta["BN"]),)
    moving_pointers[grid](a, b, c, M, N, K, a.stride(0), a.stride(1), b.stride(0), b.stride(1), c.stride(0), c.stride(1), BM=32, BN=32, BK=16)
    return c
""",
    """\
@triton.jit
def grouped(a_ptr, b_ptr, c_ptr, M, N, K, sam, sak, sbk, sbn, scm, scn, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP: tl.constexpr):
    pid = tl.program_id(0)
    down, across = tl.cdiv(M, BLOCK_M), tl.cdiv(N, BLOCK_N)
    group = pid // (GROUP * across)
    first = group * GROUP
    height = min(down - first, GROUP)
    tile_m = first + (pid % (GROUP * across)) % height
    tile_n = (pid % (GROUP * across)) // height
    rm = tile_m * BLOCK_M + tl.arange(0, BLOCK_M)
    rn = tile_n * BLOCK_N + tl.arange(0, BLOCK_N)
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, K, BLOCK_K):
        rk = start + tl.arange(0, BLOCK_K)
        a = tl.load(a_ptr + rm[:, None] * sam + rk[None, :] * sak, (rm < M)[:, None] & (rk < K)[None, :], other=0.0)
        b = tl.load(b_ptr + rk[:, None] * sbk + rn[None, :] * sbn, (rk < K)[:, None] & (rn < N)[None, :], other=0.0)
        acc = tl.dot(a, b, acc, input_precision="ieee")
    tl.store(c_ptr + rm[:, None] * scm + rn[None, :] * scn, acc.to(c_ptr.dtype.element_ty), (rm < M)[:, None] & (rn < N)[None, :])

def matmul(a, b):
    M, K = a.shape
    N = b.shape[1]
    c = torch.empty((M, N), device=a.device, dtype=a.dtype)
    programs = triton.cdiv(M, 64) * triton.cdiv(N, 16)
    grouped[(programs,)](a, b, c, M, N, K, *a.stride(), *b.stride(), *c.stride(), BLOCK_M=64, BLOCK_N=16, BLOCK_K=64, GROUP=2)
    return c
""",
    """\
@triton.jit
def without_dot(a_ptr, b_ptr, c_ptr, M, N, K, sam, sak, sbk, sbn, scm, scn, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    cols = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    acc = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for k in range(0, K):
        a = tl.load(a_ptr + rows * sam + k * sak, mask=rows < M, other=0.0).to(tl.float32)
        b = tl.load(b_ptr + k * sbk + cols * sbn, mask=cols < N, other=0.0).to(tl.float32)
        acc += a[:, None] * b[None, :]
    tl.store(c_ptr + rows[:, None] * scm + cols[None, :] * scn, acc, mask=(rows < M)[:, None] & (cols < N)[None, :])

def matmul(a, b):
    (M, K), N = a.shape, b.shape[1]
    c = torch.empty((M, N), dtype=a.dtype, device=a.device)
    without_dot[(triton.cdiv(M, 64), triton.cdiv(N, 64))](a, b, c, M, N, K, *a.stride(), *b.stride(), *c.stride(), BLOCK_M=64, BLOCK_N=64)
    return c
""",
    """\
@triton.jit
def columns_first(a_ptr, b_ptr, c_ptr, M, N, K, sam, sak, sbk, sbn, scm, scn, T: tl.constexpr):
    cols = tl.program_id(0) * T + tl.arange(0, T)[None, :]
    rows = tl.program_id(1) * T + tl.arange(0, T)[:, None]
    acc = tl.zeros([T, T], tl.float32)
    for start in range((K + T - 1) // T * T - T, -1, -T):
        down = start + tl.arange(0, T)[:, None]
        across = start + tl.arange(0, T)[None, :]
        b = tl.load(b_ptr + down * sbk + cols * sbn, mask=(down < K) & (cols < N), other=0.0).to(tl.float32)
        a = tl.load(a_ptr + rows * sam + across * sak, mask=(rows < M) & (across < K), other=0.0).to(tl.float32)
        acc += tl.dot(a, b, input_precision="ieee")
    tl.store(c_ptr + rows * scm + cols * scn, acc, mask=(rows < M) & (cols < N))

def matmul(a, b):
    (M, K), N = a.shape, b.shape[1]
    c = torch.zeros((M, N), dtype=a.dtype, device=a.device)
    columns_first[(triton.cdiv(N, 16), triton.cdiv(M, 16))](a, b, c, M, N, K, *a.stride(), *b.stride(), *c.stride(), T=16)
    return c
""",
)

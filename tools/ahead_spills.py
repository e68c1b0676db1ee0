"""The spills that stay: cells of the ahead-of-time matrix that may spill registers, each group with its reason.

Data alone; `tools.ahead_matrix` reads it, and a test holds that every group is needed.
"""

# Spills that stay, each with its reason; every other cell must not spill at all: (kernel, targets, dtypes, shapes as text, bytes, why)
KEPT = (
    (
        "flash_forward_two_tiles", (90,), ("fp16", "bf16"), ("D 128", "D 128, causal"), 212,
        "Two tiles of sums fill the registers; on an H200 these tiles were still the fastest of those tried, as measured with Triton 3.6.",
    ),
    (
        "flash_forward_two_tiles", (86, 89, 90, 100, 120), ("bf16",), ("D 40", "D 40, causal"), 644,
        "Rows of 40 elements are no multiple of 16: no copy is asynchronous, and tiles wait in registers. flash_forward spills nothing there.",
    ),
    (
        "flash_forward_descriptors", (120,), ("bf16",), ("D 40",), 24,
        "Padded to 64 columns, on the tiles of a larger head.",
    ),
    (
        "flash_forward_descriptors", (90, 100, 120), ("fp32",), ("D 256, causal",), 280,
        "Exact float32 uses no tensor cores, and there are no smaller tiles to go to. flash_forward spills nothing there.",
    ),
    (
        "flash_forward", (100,), ("fp16", "bf16"), ("D 128", "D 128, causal", "D 256", "D 256, causal"), 80,
        "The tiles of an H200: shared memory, by which tiles are chosen, is the same on both. Nobody has measured this on a B200.",
    ),
    (
        "rms_norm", (75, 80, 86, 89, 90, 100, 120), ("fp32",), ("M 1024, N 32768",), 64,
        "The widest row: 32 warps have 64 registers a thread, and the row is needed twice.",
    ),
    (
        "paged_decode", (120,), ("bf16",), ("D 64",), 16,
        "The tiles of an H200; nobody has measured them on an RTX 50.",
    ),
    (
        "paged_prefill", (100,), ("bf16",), ("D 256",), 32,
        "Eight registers on B200, at the tiles that were fastest in a sweep on an H200. Nobody has measured this on a B200.",
    ),
    *(
        (
            f"exercise {name}", targets, ("fp32",), ("its largest probe",), most,
            "A lesson's kernel, on the tiles that the interpreter likes; exact float32 products use no tensor cores and hold their operands in registers.",
        )
        for name, targets, most in (
            ("flash_forward", (86, 89, 90, 100, 120), 32),
            ("flash_forward_causal", (90, 100, 120), 16),
            ("flash_forward_lse", (86, 89, 100, 120), 40),
            ("flash_forward_gqa", (80, 86, 89, 90, 100, 120), 40),
            ("flash_backward_dkdv", (80, 86, 89, 90, 100, 120), 96),
            ("flash_forward_varlen", (90, 100, 120), 72),
            ("flash_forward_window", (90, 100, 120), 16),
        )
    ),
    (
        "attention_delta", (100,), ("fp16",), ("D 128",), 4,
        "Tiles chosen by compiling, or those of an H200; nobody has measured them on these GPUs.",
    ),
    (
        "flash_backward_dkdv", (75,), ("fp16",), ("D 256, causal",), 812,
        "The smallest tiles there are: two sums of 256 columns beside two tiles, and no tensor cores.",
    ),
    (
        "flash_backward_dkdv", (80, 86, 89, 90, 100, 120), ("bf16",), ("D 40, causal",), 196,
        "Rows of 40 elements are no multiple of 16: no copy is asynchronous, and tiles wait in registers.",
    ),
    (
        "flash_backward_dkdv", (80, 86, 89, 100, 120), ("bf16",), ("D 64, causal", "D 256, causal", "D 128, causal"), 1116,
        "Tiles chosen by compiling, or those of an H200; nobody has measured them on these GPUs.",
    ),
    (
        "flash_backward_dkdv", (90,), ("bf16",), ("D 128, causal",), 220,
        "Tiles chosen by time on an H200 with as many K/V heads as query heads, where they spill little or nothing; heads that share K and V cost another loop.",
    ),
    (
        "flash_backward_dkdv", (90,), ("bf16",), ("D 256, causal",), 52,
        "Tiles chosen by compiling; nobody has timed heads of 256 columns.",
    ),
    (
        "flash_backward_dq", (75,), ("fp16",), ("D 256, causal",), 540,
        "The smallest tiles there are: two sums of 256 columns beside two tiles, and no tensor cores.",
    ),
    (
        "flash_backward_dq", (80, 86, 89, 100, 120), ("bf16",), ("D 40, causal",), 192,
        "Rows of 40 elements are no multiple of 16: no copy is asynchronous, and tiles wait in registers.",
    ),
    (
        "flash_score_mod", (90,), ("bf16",), ("D 128, causal",), 4,
        "The tiles of the dense kernel, and a few registers more for where a sequence begins, for the window or for the change of scores.",
    ),
    (
        "flash_score_mod", (100,), ("bf16",), ("D 128, causal", "D 256, causal"), 692,
        "Tiles chosen by compiling, or those of an H200; nobody has measured them on these GPUs.",
    ),
    (
        "flash_varlen", (80, 86, 89), ("bf16",), ("D 40, causal",), 80,
        "Rows of 40 elements are no multiple of 16: no copy is asynchronous, and tiles wait in registers.",
    ),
    (
        "flash_varlen", (80,), ("bf16",), ("D 128, causal",), 64,
        "Tiles chosen by compiling, or those of an H200; nobody has measured them on these GPUs.",
    ),
    (
        "flash_varlen", (90,), ("bf16",), ("D 256, causal",), 28,
        "Tiles chosen by compiling; nobody has timed heads of 256 columns.",
    ),
    (
        "flash_varlen_backward", (75,), ("fp16",), ("D 256, causal",), 812,
        "The smallest tiles there are: two sums of 256 columns beside two tiles, and no tensor cores.",
    ),
    (
        "flash_varlen_backward", (80, 86, 89, 90, 100, 120), ("bf16",), ("D 40, causal",), 952,
        "Rows of 40 elements are no multiple of 16: no copy is asynchronous, and tiles wait in registers.",
    ),
    (
        "flash_varlen_backward", (80, 86, 89, 100, 120), ("bf16",), ("D 64, causal", "D 256, causal", "D 128, causal"), 1148,
        "Tiles chosen by compiling, or those of an H200; nobody has measured them on these GPUs.",
    ),
    (
        "flash_varlen_backward", (90,), ("bf16",), ("D 64, causal", "D 128, causal"), 248,
        "Tiles chosen by time on an H200 with as many K/V heads as query heads, where they spill little or nothing; heads that share K and V cost another loop.",
    ),
    (
        "flash_varlen_backward", (90,), ("bf16",), ("D 256, causal",), 48,
        "Tiles chosen by compiling; nobody has timed heads of 256 columns.",
    ),
    (
        "flash_varlen_backward_dq", (75,), ("fp16",), ("D 256, causal",), 532,
        "The smallest tiles there are: two sums of 256 columns beside two tiles, and no tensor cores.",
    ),
    (
        "flash_varlen_backward_dq", (80, 86, 89, 100, 120), ("bf16",), ("D 40, causal",), 248,
        "Rows of 40 elements are no multiple of 16: no copy is asynchronous, and tiles wait in registers.",
    ),
    (
        "flash_window", (80, 86, 89, 90, 120), ("bf16",), ("D 40, causal",), 312,
        "Rows of 40 elements are no multiple of 16: no copy is asynchronous, and tiles wait in registers.",
    ),
    (
        "flash_window", (100,), ("bf16",), ("D 256, causal",), 104,
        "Tiles chosen by compiling, or those of an H200; nobody has measured them on these GPUs.",
    ),
    (
        "flash_window_backward", (75,), ("fp16",), ("D 256, causal",), 812,
        "The smallest tiles there are: two sums of 256 columns beside two tiles, and no tensor cores.",
    ),
    (
        "flash_window_backward", (80, 86, 89, 90, 100, 120), ("bf16",), ("D 40, causal",), 200,
        "Rows of 40 elements are no multiple of 16: no copy is asynchronous, and tiles wait in registers.",
    ),
    (
        "flash_window_backward", (80, 86, 89, 100, 120), ("bf16",), ("D 64, causal", "D 256, causal", "D 128, causal"), 1112,
        "Tiles chosen by compiling, or those of an H200; nobody has measured them on these GPUs.",
    ),
    (
        "flash_window_backward", (90,), ("bf16",), ("D 128, causal",), 216,
        "Tiles chosen by time on an H200 with as many K/V heads as query heads, where they spill little or nothing; heads that share K and V cost another loop.",
    ),
    (
        "flash_window_backward", (90,), ("bf16",), ("D 256, causal",), 52,
        "Tiles chosen by compiling; nobody has timed heads of 256 columns.",
    ),
    (
        "flash_window_backward_dq", (75,), ("fp16",), ("D 256, causal",), 540,
        "The smallest tiles there are: two sums of 256 columns beside two tiles, and no tensor cores.",
    ),
    (
        "flash_window_backward_dq", (80, 86, 89, 90, 100, 120), ("bf16",), ("D 40, causal",), 184,
        "Rows of 40 elements are no multiple of 16: no copy is asynchronous, and tiles wait in registers.",
    ),
    (
        "flash_window_backward_dq", (100,), ("bf16",), ("D 64, causal",), 4,
        "Tiles chosen by compiling, or those of an H200; nobody has measured them on these GPUs.",
    ),
    (
        "exercise paged_prefill", (80, 90), ("fp32",), ("its largest probe",), 20,
        "A lesson's kernel, on the tiles that the interpreter likes; exact float32 products use no tensor cores and hold their operands in registers.",
    ),
)  # fmt: skip

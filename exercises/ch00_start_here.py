"""Chapter 00: Start here.

Generated from solutions/ch00_start_here.py by `make sync`: the exercises as nobody has touched them yet.
You may edit this file. `course check NAME` takes an edited exercise over into answers/, where your work is kept.
"""


# %% exercise copy_bandwidth | core | 5 minutes | 1 point | model
def copy_bandwidth(elements: int, bytes_each: int, seconds: float) -> float:
    """How fast a copy moved its bytes, in GB/s.

    elements    how many elements were copied
    bytes_each  bytes an element: 4 for float32, 2 for bfloat16
    seconds     how long the copy took
    returns     GB/s, 1 GB = 10**9 bytes; bytes read and bytes written both count

    Example: 250,000,000 float32 elements in 0.1 s: 1 GB read and 1 GB written in a tenth of a second, 20.0.
    Source: McCalpin's STREAM benchmark, kernel Copy, counts bytes this way.
    """
    raise NotImplementedError("copy_bandwidth (chapter 00) is not written yet")


# as generated: top 6b2950a0f207, copy_bandwidth 113923c94f9b

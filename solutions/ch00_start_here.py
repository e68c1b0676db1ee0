"""Chapter 00: Start here.

The source of the chapter's exercise: statement, solution, hints. `make sync` writes the stub from it.
"""


# %% exercise copy_bandwidth | core | 5 minutes | 1 point | model
# hint: A copy does two things to memory with every byte. Which two?
# hint: Count the bytes first: every element is read once and written once. Then divide by the time, and only then change the unit.
# hint: moved = 2 * elements * ...; the result is moved / seconds, divided by the number of bytes in a GB.
def copy_bandwidth(elements: int, bytes_each: int, seconds: float) -> float:
    """How fast a copy moved its bytes, in GB/s.

    elements    how many elements were copied
    bytes_each  bytes an element: 4 for float32, 2 for bfloat16
    seconds     how long the copy took
    returns     GB/s, 1 GB = 10**9 bytes; bytes read and bytes written both count

    Example: 250,000,000 float32 elements in 0.1 s: 1 GB read and 1 GB written in a tenth of a second, 20.0.
    Source: McCalpin's STREAM benchmark, kernel Copy, counts bytes this way.
    """
    # solution
    moved = 2 * elements * bytes_each  # read once, written once
    return moved / seconds / 1e9
    # end

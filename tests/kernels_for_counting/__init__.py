"""Kernels whose bytes have a closed form, for the tests of the byte counter."""

"""The course's own tuned Triton kernels: one idea a file, each importing torch and triton only.

Hugging Face also publishes a package named `kernels`. Libraries that look for it ask for its installed metadata,
which this folder does not have, so they carry on without it; tests/test_environment.py holds that.
"""

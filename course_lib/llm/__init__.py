"""The course's language model: a small Llama, its cache, its tokenizer, and the two checkpoints that come with it.

from course_lib.llm import load_model, load_tokenizer, generate, sampler
"""

from course_lib.llm.cache import Attend, Cache, KVCache
from course_lib.llm.config import ModelConfig
from course_lib.llm.generation import generate, generate_uncached, probabilities, sampler, stream
from course_lib.llm.loading import checkpoint_folder, load_model, load_tokenizer
from course_lib.llm.model import Llama, causal_attention
from course_lib.llm.paged import PagedCache
from course_lib.llm.rope import apply_rope, inverse_frequencies, rope_table
from course_lib.llm.tokenizer import Tokenizer

__all__ = [
    "Attend",
    "Cache",
    "KVCache",
    "Llama",
    "ModelConfig",
    "PagedCache",
    "Tokenizer",
    "apply_rope",
    "causal_attention",
    "checkpoint_folder",
    "generate",
    "generate_uncached",
    "inverse_frequencies",
    "load_model",
    "load_tokenizer",
    "probabilities",
    "rope_table",
    "sampler",
    "stream",
]

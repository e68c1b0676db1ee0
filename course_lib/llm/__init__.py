"""The course's language model: a small Llama, its tokenizer, and the checkpoints of it."""

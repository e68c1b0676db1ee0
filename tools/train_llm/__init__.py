"""How the course's language model was made: corpus, tokenizer, training, measurement. See __main__.py for the commands."""

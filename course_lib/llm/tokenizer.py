"""Text to token ids and back: a thin layer over Hugging Face's `tokenizers`. Knows nothing of models."""

from collections.abc import Iterable, Iterator
from pathlib import Path


class Tokenizer:
    """encode(text) -> list of ids, decode(ids) -> text."""

    def __init__(self, path: str | Path):
        from tokenizers import Tokenizer as Backend

        path = Path(path)
        path = path / "tokenizer.json" if path.is_dir() else path
        if not path.is_file():
            raise FileNotFoundError(f"{path} is not there; the course reads tokenizers in the tokenizer.json format, and no other")
        self.backend = Backend.from_file(str(path))

    @property
    def vocab_size(self) -> int:
        """How many ids there are, special ones included."""
        return self.backend.get_vocab_size()

    def encode(self, text: str, special: bool = True) -> list[int]:
        """Token ids of a text. special=False leaves out what the tokenizer puts in front of every text (the beginning-of-text token)."""
        if not isinstance(text, str):
            raise TypeError(f"encode takes a text, not {type(text).__name__}; for several texts, call it once each")
        return self.backend.encode(text, add_special_tokens=special).ids

    def decode(self, ids: Iterable[int], special: bool = False) -> str:
        """The text of token ids (a list or a one-dimensional tensor). special=True shows special tokens too."""
        ids = ids.tolist() if hasattr(ids, "tolist") else list(ids)
        return self.backend.decode(ids, skip_special_tokens=not special)

    def pieces(self, ids: Iterable[int]) -> Iterator[str]:
        """Text as it grows, one piece a token: an empty one where a token ends inside a character."""
        held: list[int] = []
        shown = ""
        for token in ids:
            held.append(int(token))
            text = self.decode(held)
            if text.endswith("\N{REPLACEMENT CHARACTER}"):
                yield ""
                continue
            yield text[len(shown) :]
            shown = text
            if len(held) > 16:  # decode only what is near: the cost of a piece does not grow with the text
                held = held[-4:]
                shown = self.decode(held)

"""The text: the Python sources of one interpreter's own standard library, split into train, valid and test by a hash of each file's path.

    python -m tools.train_llm prepare --stdlib DIR --out .dev/corpus

writes tokenizer.json (trained on the training files), tokens.npz (one uint16 array a split) and corpus.json (what went in, with checksums).
"""

import hashlib
import json
import re
import sys
from pathlib import Path

import numpy as np

VOCAB = 2048
END = "<|endoftext|>"
SHARES = {"test": 3, "valid": 3}  # percent of the files; the rest is for training
# Tables, generated text and deliberately broken or foreign-language files: Python to the interpreter, noise to a small model.
LEFT_OUT = re.compile(
    r"site-packages/|__pycache__/|pydoc_data/|lib2to3/tests/|idlelib/idle_test/htest|lib-dynload/|turtledemo/"
    r"|encodings/(?!__init__|utf_8|ascii|idna|punycode|aliases|hex_codec)|test/(bad|encoded_modules|cjkencodings|tokenizedata)"
    r"|test_(unicodedata|ucn|multibytecodec|codecmaps|codecencodings|str|source_encoding|utf8source|charmapcodec|unicode_identifiers)"
    r"|test/test_email/(test__header_value_parser|torture_test)|html/entities|config-|mock_data|stringprep|_sysconfigdata"
)


def split_of(path: str) -> str:
    """ "train", "valid" or "test": the same for a path for ever, whatever else is in the corpus."""
    percent = int.from_bytes(hashlib.sha256(path.encode()).digest()[:4], "big") % 100
    for name, share in SHARES.items():
        if percent < share:
            return name
        percent -= share
    return "train"


def usable(text: str) -> bool:
    """Whether a file reads as Python: few characters outside ASCII, no endless lines, not a table of numbers."""
    if len(text) < 200 or max(map(len, text.splitlines()), default=0) > 400:
        return False
    strange = sum(ord(c) > 126 for c in text) / len(text)
    digits = sum(c.isdigit() for c in text) / len(text)
    return strange < 0.002 and digits < 0.12


def documents(stdlib: Path) -> list[tuple[str, str]]:
    """[(path, text)], sorted by path. Each text starts with its path as a comment, so that a prompt can name the kind of file it wants."""
    found = []
    for path in sorted(stdlib.rglob("*.py")):
        name = path.relative_to(stdlib).as_posix()
        if LEFT_OUT.search(name):
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        if usable(text):
            found.append((name, f"# {name}\n" + re.sub(r"[ \t]+\n", "\n", text.expandtabs(8)).strip() + "\n"))
    if not found:
        raise SystemExit(f"prepare: no Python sources under {stdlib}; name the folder that holds heapq.py")
    return found


def train_tokenizer(texts: list[str], vocab: int = VOCAB):
    """Byte-level BPE that splits digits one by one and keeps runs of spaces together."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    words = r"[^\r\n\w]?[A-Za-z]+|\d|_+| ?[^\s\w]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+|\w"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(words), behavior="isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocab, special_tokens=[END], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def prepare(stdlib: Path, out: Path, vocab: int = VOCAB) -> dict:
    """Write tokenizer.json, tokens.npz and corpus.json; returns what corpus.json says."""
    files = documents(stdlib)
    by_split: dict[str, list[str]] = {name: [] for name in ("train", "valid", "test")}
    for name, text in files:
        by_split[split_of(name)].append(text)
    if empty := [name for name, texts in by_split.items() if not texts]:
        raise SystemExit(f"prepare: {len(files)} files under {stdlib} leave none for {empty[0]}; that is no standard library")
    tokenizer = train_tokenizer(by_split["train"], vocab)
    end = tokenizer.token_to_id(END)
    arrays, splits = {}, {}
    for name, texts in by_split.items():
        ids = [[end, *encoding.ids] for encoding in tokenizer.encode_batch(texts)]
        arrays[name] = np.concatenate([np.array(one, dtype=np.uint16) for one in ids])
        splits[name] = {"files": len(texts), "bytes": sum(len(text.encode()) for text in texts), "tokens": len(arrays[name])}
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(out / "tokenizer.json"))
    np.savez_compressed(out / "tokens.npz", **arrays)
    said = {
        "source": f"the standard library of Python {sys.version.split()[0]}",
        "licence": "PSF License Agreement, version 2",
        "sha256": hashlib.sha256("\0".join(f"{name}\0{text}" for name, text in files).encode()).hexdigest(),
        "vocab": vocab,
        "splits": splits,
        "held out (test)": [name for name, _ in files if split_of(name) == "test"],
    }
    (out / "corpus.json").write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    return said

"""The words the course does not use, and how to find them in prose. Knows nothing of notebooks or files."""

import re

BANNED = ("simply", "just", "obviously", "magic")
_WORDS = re.compile(r"\b(" + "|".join(BANNED) + r")\b", re.IGNORECASE)
_EMOJI = re.compile("[\U0001f000-\U0001faff\u2600-\u27bf\u2b50\u2b55\ufe0f]")
_NOT_PROSE = (
    re.compile(r"```.*?```", re.DOTALL),
    re.compile(r"`[^`\n]*`"),
    re.compile(r"\$\$.*?\$\$", re.DOTALL),
    re.compile(r"\$[^$\n]+\$"),
    re.compile(r"<!--.*?-->", re.DOTALL),
    re.compile(r"\]\([^)]*\)"),
    re.compile(r"<[^>\n]*>"),
)


def prose(markdown: str) -> str:
    """The text a reader reads as sentences: code, formulas, comments, link targets and HTML tags taken out."""
    for pattern in _NOT_PROSE:
        markdown = pattern.sub(" ", markdown)
    return markdown


def slips(markdown: str) -> list[str]:
    """What the house style does not want in this text, as short sentences."""
    text = prose(markdown)
    found = [f"the word {word!r}" for word in dict.fromkeys(match[0].lower() for match in _WORDS.finditer(text))]
    if re.search(r"\w[\"')\]]*!(?!\[)", text):
        found.append("an exclamation mark")
    found += [f"the emoji {emoji!r}" for emoji in dict.fromkeys(_EMOJI.findall(text)) if emoji != "\ufe0f"]
    return found


def word_count(markdown: str) -> int:
    return len(re.findall(r"[A-Za-z][\w'-]*", prose(markdown)))

"""A small table with a title and a note, as HTML and as text. Knows nothing of what stands in it."""

import html
from dataclasses import dataclass

from course_lib.cards import rich

_BOX = "background:#ffffff;color:#1B1F24;border-radius:6px;padding:10px 14px;display:inline-block"
_TABLE = "margin:6px 0;background:#ffffff;color:#1B1F24"


@dataclass(frozen=True)
class Table:
    """Rows of words; the first column is a name and stands left, the others stand right."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""
    note: str = ""

    def __post_init__(self):
        wrong = [row for row in self.rows if len(row) != len(self.columns)]
        if wrong:
            raise ValueError(f"a table of {len(self.columns)} columns ({', '.join(self.columns)}) got a row of {len(wrong[0])}: {wrong[0]}")

    def _repr_html_(self) -> str:
        def line(words, tag: str) -> str:
            cells = (
                f'<{tag} style="text-align:{"right" if i else "left"};padding:2px 12px">{html.escape(word)}</{tag}>' for i, word in enumerate(words)
            )
            return f"<tr>{''.join(cells)}</tr>"

        title = f"<b>{rich(self.title)}</b>" if self.title else ""
        note = f"<small>{rich(self.note)}</small>" if self.note else ""
        body = "".join(line(row, "td") for row in self.rows)
        return (
            f'<div style="{_BOX}">{title}<table style="{_TABLE}"><thead>{line(self.columns, "th")}</thead><tbody>{body}</tbody></table>{note}</div>'
        )

    def __repr__(self) -> str:
        lines = [self.columns, *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.columns))]
        text = [
            "  ".join(word.rjust(width) if i else word.ljust(width) for i, (word, width) in enumerate(zip(line, widths, strict=True)))
            for line in lines
        ]
        return "\n".join(part for part in (self.title, *text, self.note) if part)

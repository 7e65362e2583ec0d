"""Text of any origin is escaped so that Markdown shows it as typed."""

from __future__ import annotations

import pytest

from oncoshift.markdown import escape


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<img src=x onerror=alert(1)>", "&lt;img src=x onerror=alert(1)>"),
        ("&lt;b>", "&amp;lt;b>"),
        ("[free](https://example.org)", r"[free\](https://example.org)"),
        ("a | b", r"a \| b"),
        ("**bold** and `code`", r"\*\*bold\*\* and \`code\`"),
        ("_x_", r"\_x\_"),
        ("# a heading", r"\# a heading"),
        ("> a quotation", r"\> a quotation"),
        ("- an item", r"\- an item"),
        ("two\n\nparagraphs", "two paragraphs"),
    ],
)
def test_markup_is_shown_as_it_was_typed(text: str, shown: str) -> None:
    assert escape(text) == shown


@pytest.mark.parametrize("text", ["left_kidney", "H&E", "0.812 [0.700, 0.900]", "train #3"])
def test_ordinary_text_stays_readable(text: str) -> None:
    assert escape(text) == text

"""Markdown and MDX: what stays of them."""

from pathlib import Path

import pytest

from indexer.documents import Block
from tests.indexer.samples import read, text_of


def _blocks(tmp_path: Path, source: str, name: str = "page.md") -> list[Block]:
    return [block for section in read(tmp_path, name, source).sections for block in section.blocks]


def _paragraph(tmp_path: Path, source: str) -> str:
    (block,) = _blocks(tmp_path, source)
    assert block.kind == "paragraph"
    return block.text


def test_both_kinds_of_headings_make_a_path_with_anchors(tmp_path: Path) -> None:
    source = "Title\n=====\n\nIntro.\n\nPart one\n--------\n\nA.\n\n### Deep `code()` ###\n\nB.\n\n"
    source += "## Part two { #second }\n\nC.\n"
    sections = read(tmp_path, "page.md", source).sections
    assert [(section.headings, section.anchor) for section in sections] == [
        ((), "title"),
        (("Part one",), "part-one"),
        (("Part one", "Deep code()"), "deep-code"),
        (("Part two",), "second"),
    ]


def test_equal_headings_get_anchors_of_their_own(tmp_path: Path) -> None:
    sections = read(tmp_path, "page.md", "# T\n\n## Fixes\n\na\n\n## Fixes\n\nb\n\n## Fixes\n\nc\n").sections
    assert [section.anchor for section in sections] == ["fixes", "fixes-1", "fixes-2"]


@pytest.mark.parametrize("suffix", ["{#mine}", "{ #mine }", "{: #mine .wide }", "{ #mine data-x=1 }"])
def test_an_anchor_is_taken_off_the_heading(tmp_path: Path, suffix: str) -> None:
    (section,) = read(tmp_path, "page.md", f"# T\n\n## Name {suffix}\n\ntext\n").sections
    assert (section.headings, section.anchor) == (("Name",), "mine")


def test_a_heading_with_nothing_below_it_is_kept_and_one_with_parts_is_not_doubled(tmp_path: Path) -> None:
    sections = read(tmp_path, "page.md", "# T\n\n## A\n\n### B\n\ntext\n\n## Empty\n\n## C\n\nmore\n").sections
    assert [(section.headings, bool(section.blocks)) for section in sections] == [
        (("A", "B"), True),
        (("Empty",), False),
        (("C",), True),
    ]


@pytest.mark.parametrize(("fence", "end"), [("```", "```"), ("~~~", "~~~"), ("`````", "`````"), ("  ```", "  ```")])
def test_fenced_code_is_whole_and_its_headings_are_none(tmp_path: Path, fence: str, end: str) -> None:
    body = "# not a heading\n\n<b>*kept*</b> [x](y) {* z *}\nimport os"
    source = f"Before\n{fence}python title='x.py' hl_lines=1\n{body}\n{end}\nAfter\n"
    blocks = _blocks(tmp_path, source)
    assert [block.kind for block in blocks] == ["paragraph", "code", "paragraph"]
    assert blocks[1].text == f"```python\n{body}\n```"


def test_a_fence_that_holds_a_fence_gets_a_longer_one(tmp_path: Path) -> None:
    (block,) = _blocks(tmp_path, "````md\n```py\nx\n```\n````\n")
    assert block.text == "````md\n```py\nx\n```\n````"


def test_a_fence_that_is_never_closed_ends_with_the_file(tmp_path: Path) -> None:
    assert _blocks(tmp_path, "```sh\nls\n\n# x\n") == [Block("code", "```sh\nls\n\n# x\n```")]


def test_indented_code_is_code_but_not_within_a_paragraph(tmp_path: Path) -> None:
    blocks = _blocks(tmp_path, "Run:\n\n    make\n\n    make test\n\nThis goes\n    on.\n")
    assert blocks == [
        Block("paragraph", "Run:"),
        Block("code", "```\nmake\n\nmake test\n```"),
        Block("paragraph", "This goes on."),
    ]


def test_colours_in_a_console_listing_are_no_words(tmp_path: Path) -> None:
    source = '```console\n$ <font color="#4E9A06">fastapi</font> dev <u style="x">main.py</u>\n```\n'
    assert _blocks(tmp_path, source) == [Block("code", "```console\n$ fastapi dev main.py\n```")]


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ('See [the *docs*](https://x.org/a_(b) "title") now', "See the docs now"),
        ("[a][ref] and [ref] and [not one]\n\n[ref]: https://x.org 'T'", "a and ref and [not one]"),
        ("<https://x.org/a_b_c> and <me@x.org>", "https://x.org/a_b_c and me@x.org"),
        ("![A *cat*](cat.png) [![build](b.svg)](https://ci)", "A cat build"),
        ('<img src="x.png" alt="A dog"> runs', "A dog runs"),
        ("**Bold**, *it*, __b__, _i_, ~~gone~~, ***both***", "Bold, it, b, i, gone, both"),
        ("snake_case_name and 2 * 3 * 4 and *args", "snake_case_name and 2 * 3 * 4 and *args"),
        ("这是**重点**内容", "这是重点内容"),
        ("这是**重点：**内容", "这是重点：内容"),
        ("`**kept** <b> [x](y)` and ``a ` b``", "`**kept** <b> [x](y)` and ``a ` b``"),
        (r"\*not\* \[it\] C:\temp", "*not* [it] C:\\temp"),
        ("a <span class='x'>b</span> List<T> <your-name> &amp; c", "a b List<T> <your-name> & c"),
        ("one<!-- two\n three --> four", "one four"),
        ("![A cat][pic] runs\n\n[pic]: cat.png", "A cat runs"),
        ("note[^1] end", "note end"),
        ("[^1]: word", "word"),
        ("one  \ntwo\\\nthree\nfour", "one\ntwo\nthree four"),
        ("中文\n换行", "中文换行"),
        ("text {{ variable }} more {% macro %} end", "text more end"),
        ("[text](page.md){.external-link target=_blank} after", "text after"),
    ],
)
def test_inline_markup_becomes_what_a_reader_sees(tmp_path: Path, source: str, shown: str) -> None:
    assert _paragraph(tmp_path, source) == shown


def test_lists_keep_their_shape_and_their_numbers(tmp_path: Path) -> None:
    source = "* one\n  goes on\n    * **inner**\n\n* two\n\n3. three\n3. four\n\n   more of four\n"
    assert [block.text for block in _blocks(tmp_path, source)] == [
        "- one goes on\n  - inner\n- two",
        "3. three\n4. four\n  more of four",
    ]


def test_code_in_a_list_is_whole_and_the_list_goes_on(tmp_path: Path) -> None:
    source = "1. First:\n\n    ```sh\n    make\n      all\n    ```\n\n2. Second\n"
    assert _blocks(tmp_path, source) == [
        Block("list", "1. First:"),
        Block("code", "```sh\nmake\n  all\n```"),
        Block("list", "2. Second"),
    ]


def test_a_year_at_the_start_of_a_line_is_no_list(tmp_path: Path) -> None:
    assert _paragraph(tmp_path, "It was founded in\n1998. Nobody noticed.") == "It was founded in 1998. Nobody noticed."


def test_a_table_is_pipes_with_plain_cells(tmp_path: Path) -> None:
    source = "Name | Use\n:-- | --:\n`a|b` | **x** \\| y\n[z](u) |\n\nAfter\n"
    assert _blocks(tmp_path, source) == [
        Block("table", "| Name | Use |\n| --- | --- |\n| `a\\|b` | x \\| y |\n| z |  |"),
        Block("paragraph", "After"),
    ]


@pytest.mark.parametrize(
    "source",
    [
        "/// tip | Mind\n\nInner **text**.\n\n///\n\nAfter",
        "/// Details | Mind\n    type: note\n    open: true\n\nInner text.\n\n///\n\nAfter",
        '!!! note "Mind"\n    Inner text.\n\nAfter',
        '??? note "Mind"\n\n    Inner\n    text.\n\nAfter',
        '=== "Mind"\n\n    Inner text.\n\nAfter',
        ":::tip[Mind]\n\nInner text.\n\n:::\n\nAfter",
        ":::tip Mind\nInner text.\n:::\nAfter",
        "> [!NOTE]\n> Mind\n>\n> Inner text.\n\nAfter",
        "<details>\n<summary>Mind</summary>\n\nInner text.\n\n</details>\n\nAfter",
    ],
)
def test_a_container_becomes_its_title_and_its_inner_text(tmp_path: Path, source: str) -> None:
    assert [block.text for block in _blocks(tmp_path, source)] == ["Mind", "Inner text.", "After"]


def test_containers_within_containers_and_code_in_them(tmp_path: Path) -> None:
    source = "//// tab | One\n\n/// warning\n\nA.\n\n///\n\n////\n\n!!! tip\n    B:\n\n    ```py\n    x\n    ```\n"
    assert [block.text for block in _blocks(tmp_path, source)] == ["One", "A.", "B:", "```py\nx\n```"]


@pytest.mark.parametrize(
    "dropped",
    [
        "{* ../../docs_src/x.py hl[1,2] *}",
        "{!> ../x.py!}",
        "--8<-- 'x.md'",
        "[TOC]",
        "<!-- a comment\n\nover lines -->",
        "<style>\n\n.x { color: red }\n</style>",
        "<script>\nlet a = '<p>'\n\n</script>",
        "[ref]: https://x.org",
        "***",
        "```\n{!../x.py!}\n```",
    ],
)
def test_what_no_reader_sees_is_dropped(tmp_path: Path, dropped: str) -> None:
    assert [block.text for block in _blocks(tmp_path, f"Before\n\n{dropped}\n\nAfter\n")] == ["Before", "After"]


def test_html_headings_count_as_headings(tmp_path: Path) -> None:
    document = read(
        tmp_path, "README.md", '<h1 align="center">\n  My <b>Tool</b>\n</h1>\n\n<h2 id="use">Use</h2>\n\nText.\n'
    )
    assert document.title == "My Tool"
    assert [(section.headings, section.anchor) for section in document.sections] == [(("Use",), "use")]


def test_an_html_table_in_markdown_is_a_table(tmp_path: Path) -> None:
    source = "<table>\n<tr><th>A</th><th>B</th></tr>\n\n<tr><td>1</td><td>2</td></tr>\n</table>\n"
    assert _blocks(tmp_path, source) == [Block("table", "| A | B |\n| --- | --- |\n| 1 | 2 |")]


def test_generated_reference_keeps_the_names_it_is_about(tmp_path: Path) -> None:
    source = "::: lib.Upload\n    options:\n        members:\n            - read\n            - seek\n\nAfter\n"
    assert [block.text for block in _blocks(tmp_path, source)] == ["`lib.Upload`: `read`, `seek`", "After"]


def test_containers_nested_without_end_are_read_all_the_same(tmp_path: Path) -> None:
    assert "core" in text_of(read(tmp_path, "page.md", "> " * 3000 + "core\n\n" + "- " * 3000 + "x\n"))


MDX = """---
title: Guide
---
import Tabs from '@theme/Tabs';
import {
  A,
  B,
} from "../c";
export const meta = {
  name: 'x',

  list: [1, 2],
};

# Guide

{/* a comment
   over lines */}
Welcome {props.name} to <Tooltip tip={<b>x > y</b>}>the tool</Tooltip>.{' '}Really.

import nothing but what you need.

<Tabs>
    <TabItem value="npm" label="With npm">

    ```js
    import x from 'y';
    export default {a: 1};
    ```

    </TabItem>
</Tabs>

<Card title="How do I pay?" icon="x">
  By card.
</Card>

<Video src="x" onClick={() => { play("}") }} />

## Section {#own-id}

Use `{braces}` and `<Tag>` in code, and \\{escaped\\} ones.
"""


def test_mdx_keeps_the_words_and_drops_what_runs(tmp_path: Path) -> None:
    document = read(tmp_path, "guide.mdx", MDX)
    assert [block.text for section in document.sections for block in section.blocks] == [
        "Welcome to the tool. Really.",
        "import nothing but what you need.",
        "With npm",
        "```js\nimport x from 'y';\nexport default {a: 1};\n```",
        "How do I pay?",
        "By card.",
        "Use `{braces}` and `<Tag>` in code, and {escaped} ones.",
    ]
    assert (document.title, document.sections[-1].anchor) == ("Guide", "own-id")


def test_an_export_that_is_never_closed_costs_its_own_block_only(tmp_path: Path) -> None:
    blocks = _blocks(tmp_path, "export const x = {\n  a: 1,\n\nStill here.\n", "page.mdx")
    assert [block.text for block in blocks] == ["Still here."]


def test_a_brace_or_bracket_that_is_never_closed_costs_no_text(tmp_path: Path) -> None:
    assert _blocks(tmp_path, "If a < b then { all is well.\n", "page.mdx")[0].text == "If a < b then all is well."

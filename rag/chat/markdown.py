"""What links, tags, citations and code look like within a line of Markdown, and where they may begin.

A pattern named `…_BEGUN` matches what has not arrived as a whole. All take time in proportion to the text.
"""

import re

from rag.chat.addresses import URL

SIGNS = str.maketrans({"\0": None, **dict.fromkeys("\v\f\x1c\x1d\x1e\x85\u2028\u2029", " ")})
"""Some readers take them for the end of a line and others do not."""

# Where a construct begins, or may begin at the end of what has arrived. The first class alone passes over most text.
TOKEN = re.compile(
    r"(?=[`!\[\]<\n\r \t&/hHfFdDwW])(?:(?P<newline>\n|\r)|(?P<code>`+)|(?P<blanks>(?<![ \t])[ \t]++(?=\[|\Z))"
    r"|(?P<image>(?<!!)!++(?=\[|\Z))|(?P<bracket>\[)|(?P<closing>\])|(?P<tag><)|(?P<entity>&)|(?P<slashes>/(?=/|\Z))"
    r"|(?P<address>(?i:(?:https?|ftp|dict)\\?:\\?/\\?/|www\\?\.|(?:w{1,3}|w{3}\\)\Z"
    r"|(?:h|ht|htt|https?|ft?|ftp|d|di|dic|dict)(?:\\|\\?:(?:\\|\\?/\\?)?)?\Z)))"
)
LINE_END = re.compile(r"\r?\n")
CITED = re.compile(r"\[(\d{1,3}(?:[ \t]*,[ \t]*\d{1,3})*)\]")
CITED_BEGUN = re.compile(r"(?:\[[\d, \t]*)?\Z")
NUMBERS = re.compile(r"\Z|\[[\d, \t]*+\](?![(\[:])")
NUMBERS_BEGUN = re.compile(r"(?:\[[\d, \t]*+\]?)?\Z")
TICKS, BLANKS, MARKS = re.compile(r"`+"), re.compile(r"[ \t]+"), re.compile(r"!+")
# After a citation that goes: nothing that would come to stand beside what is before it.
GOES = re.compile(r"(?:[.,;!?)]?\r?\n|[.,;!?)]?\Z|[.,;!?)]?[ \t]+(?=[^(: \t]))")
GOES_BEGUN = re.compile(r"[.,;!?)]?[ \t]*\Z")
CODE = re.compile(r"(`+)([^`\n]++)\1(?!`)")
CODE_WITH_TICKS = re.compile(r"(`+)(?!`)([^\n]+?)(?<!`)\1(?!`)")
HARMFUL = re.compile(r"//|www\\?\.|:\\|\][ \t]*[(:]|<[a-z/!?]|&#?\w+;", re.IGNORECASE)
IN_PARENTHESES = r"\(((?:[^()\n]++|\([^()\n]*+\))*+)\)"
PLAIN_LABEL = r"""\[((?=[\w"'`]|[*_]{1,2}\w|\])(?:[^\[\]`\n]++|\[\d{1,3}\]|`[^`\n]++`)*+)\]"""
LINK = re.compile(PLAIN_LABEL + IN_PARENTHESES)
LABEL_BEGUN = re.compile(
    r"\[(?:[^\[\]`\n]++|\[\d{1,3}\]|`[^`\n]++`)*+(?:\[\d{0,3}|`[^`\n]*+)?"
    r"(?:\](?:\((?:[^()\n]++|\([^()\n]*+\))*+(?:\([^()\n]*+)?)?)?\Z"
)
TARGET = re.compile(r"\]([ \t]*+)" + IN_PARENTHESES)
TARGET_BEGUN = re.compile(
    r"\](?:[ \t]*+(?:\((?:[^()\n]++|\([^()\n]*+\))*+(?:\([^()\n]*+)?)?|:[ \t]*(?:\n[ \t>]*)?\S*)\Z"
)
ONE_ADDRESS = re.compile(r"\s*\S*\s*(?:(?<=\s)[\"'].*)?", re.DOTALL)
OPENED = re.compile(r"\]([ \t]*+)\(\s*<?(\S{0,100})")
DEFINED = re.compile(r"\]:[ \t]*(?:(\n)[ \t>]*)?<?(\S{0,2000})")
DEFINES = re.compile(r"[ \t>*+\-\d.)]*\[[^\[\]]*|[^\[\]]*")
"""What is shown of a line up to a definition's bracket."""
AUTOLINK = re.compile(r"<((?:https?|ftp)://[^\s<>]*)>", re.IGNORECASE)
AUTOLINK_BEGUN = re.compile(r"<(?:h|ht|htt|https?|ft?|ftp|(?:https?|ftp):[^\s<>]*)\Z", re.IGNORECASE)
TAG = re.compile(r"<[a-z/!?]", re.IGNORECASE)
ENTITY = re.compile(r"&#?\w{1,32};")
ENTITY_BEGUN = re.compile(r"&#?\w{0,32}\Z")
RELATIVE = re.compile(r"//(?=[^\s/.][^\s/]*\.\S)")
RELATIVE_BEGUN = re.compile(r"/(?:/[^\s/]*)?\Z")
RUN = re.compile(rf"{URL.pattern}|(?:(?:https?|ftp|dict)\\?:\\?/\\?/|www\\?\.)[^\s<>\"'`\[\])}}|]*", re.IGNORECASE)
OPENING_ALONE = re.compile(r"(?:https?|ftp|dict)://|www\.", re.IGNORECASE)
IPV6_BEGUN = re.compile(r"(?:https?|ftp)://\[[0-9a-f:.]*\Z", re.IGNORECASE)
# What ends an address for every reader.
ENDS = re.compile(r"[)\]}\"'*_.,;:!?|>~]{0,20}(?:[ \r\n]|\Z)|\]\(")
ENDS_BEGUN = re.compile(r"[)\]}\"'*_.,;:!?|>~]{0,20}\Z")
NAMED = re.compile(r"[\"']?(?:[ \r\n]|\Z)")
"""After `https://` that is spoken of, and opens nothing."""
APART = ("", "[", " ", "\n", "\t", "(", "{", "*", "_", '"', "'", ">", ",", "-", "|")

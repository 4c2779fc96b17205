"""Patterns of the texts that users give, and in words what each allows: nobody should have to read a pattern."""

from __future__ import annotations

LABEL = r"^[\w .:/@+=-]{1,64}$"
"""Letters, digits and a few signs: what can stand in a URL, a table and a file name without surprises."""

TAG_KEY = r"^[\w ./@+=-]{1,64}$"
"""The same without the colon, which separates a tag's key from its value in a query."""

TAG = r"^[\w ./@+=-]+:[\w .:/@+=-]+$"
"""Key and value."""

OWN_NAME = r"[a-z0-9][a-z0-9_.-]{0,47}"
"""What follows the kind in the name of somebody's own data set, which is a folder's name, too."""

PRINTABLE = r"^[^\x00-\x1f\uFFFE\uFFFF]*$"
"""Anything but control characters and what is no character in XML, and so in no figure."""

STORABLE = r"^[^\x00]*$"
"""Postgres holds no NUL."""

VISIBLE = r"^[\x21-\x7e]+$"
"""What a header can carry."""

_OWN_NAME_WORDS = "1 to 48 lower-case letters, digits and _.-, starting with a letter or digit"

WORDS = {
    LABEL: "must be 1 to 64 letters, digits, spaces and _.:/@+=-",
    TAG_KEY: "a tag's key must be 1 to 64 letters, digits, spaces and _./@+=-",
    TAG: "must be key:value, with letters, digits, spaces and _.:/@+=-",
    f"^{OWN_NAME}$": f"must be {_OWN_NAME_WORDS}",
    **{
        f"^{kind}/{OWN_NAME}$": f"must be {kind}/ followed by {_OWN_NAME_WORDS}"
        for kind in ("images", "texts", "tables")
    },
    PRINTABLE: "must not contain control characters or the code points U+FFFE and U+FFFF",
    STORABLE: "must not contain NUL characters",
    VISIBLE: "must be visible ASCII characters without spaces",
}

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

_OWN_NAME_WORDS = "1 to 48 lower-case letters, digits and signs of _.-, beginning with a letter or digit"

WORDS = {
    LABEL: "has to be 1 to 64 letters, digits, spaces and signs of _.:/@+=-",
    TAG_KEY: "a tag's key has to be 1 to 64 letters, digits, spaces and signs of _./@+=-",
    TAG: "has to be key:value, of letters, digits, spaces and signs of _.:/@+=-",
    f"^{OWN_NAME}$": f"has to be {_OWN_NAME_WORDS}",
    **{
        f"^{kind}/{OWN_NAME}$": f"has to be {kind}/ and then {_OWN_NAME_WORDS}"
        for kind in ("images", "texts", "tables")
    },
    PRINTABLE: "must not hold control characters, nor the code points FFFE and FFFF",
    STORABLE: "must not hold the character NUL",
    VISIBLE: "has to be visible ASCII characters, without spaces",
}

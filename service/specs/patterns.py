"""Patterns of user-supplied text, and error messages that describe them in words."""

from __future__ import annotations

LABEL = r"^[\w .:/@+=-]{1,64}$"
"""Letters, digits and some punctuation, which are safe in URLs, tables and file names."""

TAG_KEY = r"^[\w ./@+=-]{1,64}$"
"""As `LABEL`, without the colon, which separates a tag's key from its value in a query."""

TAG = r"^[\w ./@+=-]+:[\w .:/@+=-]+$"
"""Key and value of a tag, separated by a colon."""

OWN_NAME = r"[a-z0-9][a-z0-9_.-]{0,47}"
"""The name of an uploaded data set, after its kind; it is also the name of a folder."""

CODE_NAME = r"[a-z][a-z0-9_]{0,29}"
"""The name of uploaded code, which is also the name of a Python module."""

CODE_OWNER = r"[A-Za-z0-9][A-Za-z0-9._-]{0,23}"
"""The name of a user who can upload code, before the name of the code."""

VERSION = r"[0-9a-f]{8}"
"""The first digits of the SHA-256 of uploaded code."""

UPLOADED_NAME = rf"^{CODE_OWNER}/{CODE_NAME}(@{VERSION})?$"
"""The name of uploaded code in jobs; names of libraries' optimizers have this form, too."""

DECLARED_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,47}/[a-z0-9_]{1,48}(@[0-9a-f]{8})?$"
"""The name of an optimizer of a library, or of an uploaded one."""

LIBRARY_MODEL_NAME = r"^(torchvision|timm)/[a-z0-9_]{1,56}$"
"""The name of a model of a library."""

PRINTABLE = r"^[^\x00-\x1f\x7f-\x9f\u061C\u200B\u200E\u200F\u2028-\u202E\u2060-\u206F\uFEFF\uFFF9-\uFFFF]*$"
"""Anything but control characters, also those that change the direction of the text around them or show nothing, and
code points that XML, and therefore SVG, forbids. Joiners are allowed: names in Persian and Hindi need them."""

LINES = PRINTABLE.replace(r"\x00-\x1f", r"\x00-\x08\x0b\x0c\x0e-\x1f")
"""The same in several lines."""

STORABLE = r"^[^\x00]*$"
"""PostgreSQL cannot store NUL."""

ID_PART = r"^-*([0-9A-Fa-f]-*){4,32}$"
"""An id, or its beginning or end."""

VISIBLE = r"^[\x21-\x7e]+$"
"""Characters allowed in a header value."""

_OWN_NAME_WORDS = "1 to 48 lower-case letters, digits and _.-, starting with a letter or digit"

WORDS = {
    LABEL: "must be 1 to 64 letters, digits, spaces and _.:/@+=-",
    TAG_KEY: "a tag's key must be 1 to 64 letters, digits, spaces and _./@+=-",
    TAG: "must be KEY:VALUE, with letters, digits, spaces and _.:/@+=-",
    DECLARED_NAME: "must be LIBRARY/NAME, such as pytorch_optimizer/soap, or that of uploaded code, such as ada/mine",
    LIBRARY_MODEL_NAME: "must be LIBRARY/NAME with the library torchvision or timm, such as timm/resnet18",
    f"^{CODE_NAME}$": "must be 1 to 30 lower-case letters, digits and _, starting with a letter",
    f"^{OWN_NAME}$": f"must be {_OWN_NAME_WORDS}",
    **{
        f"^{kind}/{OWN_NAME}$": f"must be {kind}/ followed by {_OWN_NAME_WORDS}"
        for kind in ("images", "texts", "tables")
    },
    PRINTABLE: "must not contain control characters, invisible characters or those that change the direction of text",
    LINES: "must not contain control characters, invisible characters or those that change the direction of text",
    STORABLE: "must not contain NUL characters",
    ID_PART: "must be an id, or 4 or more characters from its beginning or end",
    VISIBLE: "must be visible ASCII characters without spaces",
}
"""Pattern -> error message."""

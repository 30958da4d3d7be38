"""The lines that stay on a terminal: those that a progress bar draws over again and again are left out."""

from __future__ import annotations

import re

__all__ = ["TerminalLines"]

_TOKEN = re.compile(r"\x1b\[(?P<arg>[0-9;?]*)(?P<code>[A-Za-z])|(?P<end>\n)|(?P<back>\r)|[^\x1b\n\r]+|\x1b")
_UNFINISHED = re.compile(r"\x1b(\[[0-9;?]*)?$")


class TerminalLines:
    """Takes the output of a program piece by piece and gives the lines that a reader would see in the end.

    A display of several bars is drawn over by moving the cursor up as many lines as it has but one. What comes
    then is new lines, if there are any, and the display again: of the lines that follow, only those stay that
    are more than the cursor went up. This suffices for what rich and tqdm write; it is no terminal.
    """

    def __init__(self) -> None:
        self._line = ""
        self._unread = ""
        self._returned = False  # the cursor is at the start of the line: what comes replaces it
        self._moving = False  # within the control codes that begin a new drawing
        self._ups = 0
        self._held: list[str] = []

    def feed(self, text: str) -> list[str]:
        """Take a piece of output and return the lines that are now known to stay, without control codes."""
        text = self._unread + text
        unfinished = _UNFINISHED.search(text)
        self._unread = unfinished.group() if unfinished else ""
        out: list[str] = []
        for token in _TOKEN.finditer(text, 0, len(text) - len(self._unread)):
            if token["code"]:
                out += self._control(token["code"], token["arg"])
            elif token["end"]:
                (self._held if self._ups else out).append(self._line)
                self._line, self._returned = "", False
            elif token["back"]:
                self._returned = True
            else:
                self._line = token[0] if self._returned else self._line + token[0]
                self._returned = self._moving = False
        return out

    def finish(self) -> list[str]:
        """Return what is left when the program is at its end."""
        out = [*self._held, *([self._line] if self._line else [])]
        self._line, self._held, self._ups = "", [], 0
        return out

    def _control(self, code: str, arg: str) -> list[str]:
        out: list[str] = []
        if code in "AK" and not self._moving:
            out = self._held[: max(len(self._held) - self._ups, 0)]
            self._held, self._ups, self._moving = [], 0, True
        if code == "A":
            self._ups += int(arg or "1")
            self._line = ""
        elif code == "K":
            self._line = ""
        elif (code, arg) == ("h", "?25"):  # the cursor is shown again: the display stays as it is
            out, self._held, self._ups = self._held, [], 0
        return out

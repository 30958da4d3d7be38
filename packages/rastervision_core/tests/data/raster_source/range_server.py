"""Serve a folder over HTTP with range requests, and log them: ``python range_server.py FOLDER LOG`` prints its port.

A process of its own: GDAL keeps the interpreter's lock while it opens a URL.
"""

from __future__ import annotations

import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

folder, log = Path(sys.argv[1]), Path(sys.argv[2])


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = folder / self.path.partition("?")[0].lstrip("/")
        content = path.read_bytes() if path.is_file() else b""
        part, status = content, 200 if path.is_file() else 404
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if found and content:
            start, end = int(found[1]), min(int(found[2] or len(content)), len(content) - 1)
            part, status = content[start : end + 1], 206
        self.send_response(status)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{end}/{len(content)}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        sent = 0 if self.command == "HEAD" else len(part)
        if sent:
            self.wfile.write(part)
        with log.open("a") as f:
            f.write(f"{path.name} {sent}\n")

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()

"""A stand-in for the Hugging Face Hub on this machine: a repository is a folder, its files are served as they are.

Knows just the requests of snapshot_download, hf_hub_download, load_dataset and evaluate.load.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_KINDS = ("datasets", "spaces", "models")


class _Hub(ThreadingHTTPServer):
    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root = root


class _Handler(BaseHTTPRequestHandler):
    server: _Hub

    def log_message(self, format: str, *args: object) -> None:
        """Tests have no use for an access log."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        wanted = json.loads(body)["paths"] if body.startswith("{") else parse_qs(body).get("paths", [])
        repository, _ = self._repository(unquote(urlsplit(self.path).path).removeprefix("/api/"))
        if repository is None:
            self._missing("RepoNotFound")
        else:
            self._json([_entry(repository, repository / p) for p in wanted if p and (repository / p).exists()])

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        repository, rest = self._repository(path.removeprefix("/api").strip("/"))
        if repository is None:
            self._missing("RepoNotFound")
            return
        what, _, inside = rest.partition("/")
        place = repository.joinpath(*inside.split("/")[1:])  # its first part is the revision
        if path.startswith("/api/") and what == "tree" and place.is_dir():
            self._json([_entry(repository, p) for p in sorted(place.rglob("*"))])
        elif path.startswith("/api/") and what in ("", "revision"):
            files = [{"rfilename": str(p.relative_to(repository))} for p in repository.rglob("*") if p.is_file()]
            self._json({"id": "/".join(repository.parts[-2:]), "sha": COMMIT, "private": False, "siblings": files})
        elif what == "resolve" and place.is_file():
            content = place.read_bytes()
            self._send(content, {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": COMMIT})
        else:
            self._missing("EntryNotFound")

    def _repository(self, path: str) -> tuple[Path | None, str]:
        """(folder, what follows its name) of a path such as datasets/org/name/resolve/main/a.txt."""
        kind, _, rest = path.partition("/") if path.startswith(_KINDS) else ("models", "", path)
        parts = rest.split("/")
        folder = self.server.root.joinpath(kind, *parts[:2])
        return (folder if len(parts) >= 2 and folder.is_dir() else None), "/".join(parts[2:])

    def _json(self, value: object) -> None:
        self._send(json.dumps(value).encode(), {})

    def _missing(self, code: str) -> None:
        self._send(b"", {"X-Error-Code": code}, status=404)

    def _send(self, content: bytes, headers: dict[str, str], status: int = 200) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _entry(repository: Path, path: Path) -> dict[str, Any]:
    name = str(path.relative_to(repository))
    if path.is_dir():
        return {"type": "directory", "path": name, "oid": COMMIT}
    content = path.read_bytes()
    return {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}


@contextmanager
def serve(root: Path) -> Iterator[str]:
    """Serve the folder `root` (datasets/org/name/…, models/…, spaces/…); yields its address."""
    with _Hub(root) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()

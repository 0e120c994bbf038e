"""A stand-in for the Hugging Face Hub on this machine: repositories are folders, every file is served as it is.

Knows just the requests that snapshot_download, load_dataset and evaluate.load make.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
KINDS = ("datasets", "spaces", "models")


class _Hub(ThreadingHTTPServer):
    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root = root


class _Handler(BaseHTTPRequestHandler):
    server: _Hub

    def log_message(self, format: str, *args: object) -> None:
        import os

        if os.environ.get("HUBLOG"):
            print(format % args)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length).decode()
        wanted = json.loads(body)["paths"] if body.startswith("{") else parse_qs(body).get("paths", [])
        repo, rest = self._repo(unquote(urlsplit(self.path).path).removeprefix("/api/"))
        if repo is None or not rest.startswith("paths-info/"):
            return self._missing("RepoNotFound")
        wanted = [wanted] if isinstance(wanted, str) else wanted
        self._json([self._entry(repo, repo / p) for p in wanted if (repo / p).exists() and (repo / p) != repo])

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if path.startswith("/api/"):
            repo, rest = self._repo(path.removeprefix("/api/"))
            if repo is None:
                return self._missing("RepoNotFound")
            if rest.startswith("tree/"):
                folder = repo.joinpath(*rest.split("/")[2:])
                if not folder.is_dir():
                    return self._missing("EntryNotFound")
                recursive = "recursive" in self.path and "recursive=False" not in self.path
                found = sorted(folder.rglob("*") if recursive else folder.iterdir())
                return self._json([self._entry(repo, p) for p in found])
            files = [{"rfilename": str(p.relative_to(repo))} for p in sorted(repo.rglob("*")) if p.is_file()]
            name = "/".join(repo.parts[-2:])
            return self._json({"id": name, "sha": COMMIT, "private": False, "tags": [], "siblings": files})
        repo, rest = self._repo(path.strip("/"))
        if repo is None:
            return self._missing("RepoNotFound")
        if not rest.startswith("resolve/"):
            return self._missing("EntryNotFound")
        file = repo.joinpath(*rest.split("/")[2:])
        if not file.is_file():
            return self._missing("EntryNotFound")
        content = file.read_bytes()
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self._send(content)

    def _repo(self, path: str) -> tuple[Path | None, str]:
        """(folder, what follows the repository's name) of a path such as datasets/org/name/resolve/main/a.txt."""
        parts = path.split("/")
        kind = parts.pop(0) if parts[0] in KINDS else "models"
        folder = self.server.root.joinpath(kind, *parts[:2])
        return (folder if len(parts) >= 2 and folder.is_dir() else None), "/".join(parts[2:])

    def _entry(self, repo: Path, path: Path) -> dict[str, object]:
        name = str(path.relative_to(repo))
        if path.is_dir():
            return {"type": "directory", "path": name, "oid": COMMIT}
        content = path.read_bytes()
        return {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}

    def _json(self, value: object) -> None:
        self.send_response(200)
        self._send(json.dumps(value).encode())

    def _missing(self, code: str) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self._send(b"")

    def _send(self, content: bytes) -> None:
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@contextmanager
def serve(root: Path) -> Iterator[str]:
    """Serve the folder `root` (datasets/org/name/…, models/…, spaces/…); yields its address."""
    with _Hub(root) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()

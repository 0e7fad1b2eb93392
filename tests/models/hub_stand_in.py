"""A Hugging Face hub of one process: enough of its HTTP interface to create a repository, push to it and download.

Stands in for a service that tests cannot reach. The client is the real huggingface_hub.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34


class Hub(ThreadingHTTPServer):
    """Holds {repository id: {file name: content}} and the names of the files that were fetched."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.fetched: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def running_hub() -> Iterator[Hub]:
    with Hub() as hub:
        thread = threading.Thread(target=hub.serve_forever, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""

    def do_HEAD(self) -> None:
        self._serve_file(with_body=False)

    def do_GET(self) -> None:
        parts = self._parts()
        if parts[:2] != ["api", "models"]:
            self._serve_file(with_body=True)
            return
        repo_id = "/".join(parts[2:4])
        files = self.server.repositories.get(repo_id)
        if files is None:
            self._answer(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        elif parts[4:5] == ["tree"]:
            listing = [
                {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for name, content in files.items()
            ]
            self._answer(200, listing)
        else:
            siblings = [{"rfilename": name} for name in files]
            self._answer(200, {"id": repo_id, "modelId": repo_id, "sha": COMMIT, "siblings": siblings, "tags": []})

    def do_POST(self) -> None:
        body = self._body()
        parts = self._parts()
        if parts == ["api", "repos", "create"]:
            repo_id = json.loads(body)["name"]
            owner = json.loads(body).get("organization", "someone")
            self.server.repositories[f"{owner}/{repo_id}"] = {}
            self._answer(200, {"url": f"{self.server.address}/{owner}/{repo_id}"})
        elif parts == ["api", "validate-yaml"]:
            self._answer(200, {"errors": [], "warnings": []})
        elif parts[4:5] == ["preupload"]:
            paths = [file["path"] for file in json.loads(body)["files"]]
            answer = [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in paths]
            self._answer(200, {"files": answer})
        elif parts[4:5] == ["commit"]:
            files = self.server.repositories["/".join(parts[2:4])]
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            url = f"{self.server.address}/{'/'.join(parts[2:4])}/commit/{COMMIT}"
            self._answer(200, {"commitUrl": url, "commitOid": COMMIT})
        else:
            self._answer(404, {"error": f"{self.path} is not stood in for"})

    def _parts(self) -> list[str]:
        return unquote(urlsplit(self.path).path).strip("/").split("/")

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _serve_file(self, *, with_body: bool) -> None:
        parts = self._parts()  # owner/name/resolve/revision/file
        content = self.server.repositories.get("/".join(parts[:2]), {}).get("/".join(parts[4:]))
        if content is None:
            self._answer(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
            return
        if with_body:
            self.server.fetched.append(parts[-1])
        self.send_response(200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if with_body:
            self.wfile.write(content)

    def _answer(self, status: int, content: object, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

"""Receives webhooks, checks their signatures, and shows what came: a line each on standard output,
and the last hundred on a page. What comes to /broken is refused, to see a retry."""

import base64
import collections
import hashlib
import hmac
import html
import http.server
import pathlib
import threading
import time

SECRET = base64.b64decode(
    pathlib.Path("/run/secrets/signing_secret").read_text().strip().removeprefix("whsec_")
)
HEADINGS = ("at", "path", "type", "attempt", "signature", "answer", "id", "body")
arrived = collections.deque(maxlen=100)
count = 0
lock = threading.Lock()


def signature_is_right(headers, body):
    """As https://www.standardwebhooks.com/ has it."""
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    right = base64.b64encode(hmac.digest(SECRET, signed, hashlib.sha256)).decode()
    given = (headers["webhook-signature"] or "").split()
    return any(hmac.compare_digest(one, f"v1,{right}") for one in given)


class Receiver(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        global count
        body = self.rfile.read(int(self.headers["content-length"]))
        right = signature_is_right(self.headers, body)
        status = 500 if self.path == "/broken" else 204 if right else 401
        row = (
            time.strftime("%H:%M:%S"),
            self.path,
            self.headers["webhook-type"],
            self.headers["webhook-attempt"],
            "right" if right else "wrong",
            str(status),
            self.headers["webhook-id"],
            body.decode(),
        )
        with lock:
            count += 1
            arrived.appendleft(row)
        print(*row, flush=True)
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def do_GET(self):
        with lock:
            rows, total = list(arrived), count
        cells = lambda tag, row: "".join(f"<{tag}>{html.escape(cell or '')}</{tag}>" for cell in row)
        table = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
        page = (
            "<!doctype html><meta charset=utf-8><meta http-equiv=refresh content=2>"
            "<title>what arrived</title><style>body{font:14px sans-serif}td,th{padding:2px 8px;"
            "text-align:left;vertical-align:top}td:last-child{font-family:monospace}</style>"
            f"<h1>{total} webhooks arrived</h1><table><tr>{cells('th', HEADINGS)}</tr>{table}</table>"
        ).encode()
        self.send_response(200)
        self.send_header("content-type", "text/html; charset=utf-8")
        self.send_header("content-length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("", 8081), Receiver).serve_forever()

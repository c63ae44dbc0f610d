"""Web servers on loopback for tests: nginx, and one that misbehaves as no real server can be told to."""

import contextlib
import http.server
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

from harness import skip_without_package

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")

CONFIG = """
daemon off;
worker_processes 1;
user {user};
pid {dir}/nginx.pid;
error_log {dir}/error.log;
events {{ worker_connections 256; }}
http {{
  log_format fields '$request_method $uri $status $body_bytes_sent range=$http_range none_match=$http_if_none_match '
                    'authorization=$http_authorization';
  access_log {dir}/access.log fields;
  client_body_temp_path {dir}/tmp;
  proxy_temp_path {dir}/tmp;
  fastcgi_temp_path {dir}/tmp;
  uwsgi_temp_path {dir}/tmp;
  scgi_temp_path {dir}/tmp;
  root {files};
  limit_req_zone $server_port zone=few:1m rate=1r/s;
  server {{
    listen 127.0.0.1:{port};
    location /forbidden/ {{ return 403; }}
    location /private/ {{ return 401; }}
    location /loop/ {{ return 302 /loop/; }}
    location /to-other/ {{ return 302 http://127.0.0.1:{other}/seen/m.bin; }}
    location /here/ {{ alias {files}/; }}
    location /moved/ {{ return 302 /here/m.bin; }}
    location /noranges/ {{ alias {files}/; max_ranges 0; }}
    location /slow/ {{ alias {files}/; limit_rate 400k; }}
    location /overrun/ {{ alias {files}/; limit_req zone=few; limit_req_status 500; }}
    location /through/ {{ proxy_pass {behind}; }}
  }}
  server {{
    listen 127.0.0.1:{other};
    location /seen/ {{ alias {files}/; }}
  }}
  server {{
    listen 127.0.0.1:{tls} ssl;
    ssl_certificate {dir}/cert.pem;
    ssl_certificate_key {dir}/key.pem;
    location /down/ {{ return 302 http://127.0.0.1:{port}/m.bin; }}
  }}
}}
"""


def free_port():
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for_port(port, process, log):
    """Returns when somebody listens; fails when the process ends or 240 s have passed."""
    end = time.monotonic() + 240
    while time.monotonic() < end:
        with contextlib.closing(socket.socket()) as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise RuntimeError(f"no server on port {port}:\n{pathlib.Path(log).read_text()[-2000:]}")


class Nginx:
    """Serves the files of a directory, and below /through/ what another server has.

    A test without nginx is skipped, or fails (skip_without_package).
    """

    def __init__(self, files, behind="http://127.0.0.1:1/"):
        if NGINX is None:
            skip_without_package("nginx is not installed: nothing of http is tested")
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="cairn-nginx-"))
        self.port, self.other, self.tls = free_port(), free_port(), free_port()
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
                        "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
                        "-keyout", self.dir / "key.pem", "-out", self.certificate],
                       check=True, capture_output=True)
        text = CONFIG.format(dir=self.dir, files=files, port=self.port, other=self.other, tls=self.tls,
                             behind=behind, user="root" if os.getuid() == 0 else "nobody")
        (self.dir / "nginx.conf").write_text(text)
        self.process = subprocess.Popen([NGINX, "-c", self.dir / "nginx.conf", "-p", self.dir],
                                        stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        wait_for_port(self.tls, self.process, self.dir / "error.log")

    @property
    def certificate(self):
        return self.dir / "cert.pem"

    def url(self, path):
        return f"http://127.0.0.1:{self.port}/{path}"

    def requests(self):
        """Ends the server, and with it all requests: the lines of its log, then."""
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait(60)
        return (self.dir / "access.log").read_text().splitlines()

    def stop(self):
        self.process.terminate()  # not kill: the workers would stay
        self.process.wait(60)
        shutil.rmtree(self.dir, ignore_errors=True)


class Faulty:
    """A server whose first path component says what goes wrong; `answers` holds what it did, in order."""

    def __init__(self, content, other_content=b""):
        self.answers = []
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                with owner.mutex:
                    count = sum(path == self.path for path, _ in owner.answers)
                    owner.answers.append((self.path, self.headers.get("Range")))
                kind = self.path.split("/")[1]
                getattr(self, kind.replace("-", "_"))(count)

            def serve(self, body, etag='"one"', most=None, length=True, date=None):
                """Answers with the range that was asked for, but closes after `most` bytes of it."""
                begin, end = 0, len(body)
                wanted = self.headers.get("Range")
                guard = self.headers.get("If-Range")
                if wanted and (guard is None or guard == etag):
                    begin, last = wanted.removeprefix("bytes=").split("-")
                    begin, end = int(begin), min(int(last) + 1, len(body))
                    self.send_response(206)
                    self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{len(body)}")
                else:
                    self.send_response(200)
                if length:
                    self.send_header("Content-Length", str(end - begin))
                else:
                    self.close_connection = True
                if etag:
                    self.send_header("ETag", etag)
                if date:
                    self.send_header("Last-Modified", date)
                self.end_headers()
                piece = body[begin:end]
                self.wfile.write(piece[:most])
                if most is not None and most < len(piece):
                    self.close_connection = True

            def refuse(self, status, **headers):
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def busy_twice(self, count):
                self.refuse(503) if count < 2 else self.serve(content)

            def too_many(self, count):
                self.refuse(429, Retry_After="1") if count == 0 else self.serve(content)

            def fails_once_with(self, count):
                status = int(self.path.split("/")[2])
                self.refuse(status) if count == 0 else self.serve(content)

            def escape(self, count):
                """A part with a range that terminals would obey."""
                self.send_response(206)
                self.send_header("Content-Range", "bytes \x1b[31m5-9/10")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def always_500(self, count):
                self.refuse(500)

            def expired(self, count):
                """What S3 says to credentials that were good once."""
                body = b"<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"
                self.send_response(400)
                self.send_header("Content-Type", "application/xml")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def cut(self, count):
                self.serve(content, most=len(content) // 5)

            def cut_without_ranges(self, count):
                del self.headers["Range"]
                self.serve(content, most=len(content) // 5 if count == 0 else None)

            def always_cut(self, count):
                self.serve(content, most=0)

            def stall_once(self, count):
                if count == 0:
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content[:1000])
                    self.wfile.flush()
                    owner.closing.wait()
                    self.close_connection = True
                else:
                    self.serve(content)

            def silent(self, count):
                owner.closing.wait()
                self.close_connection = True

            def changes(self, count):
                """Another file from the second request on."""
                self.serve(*((content, '"one"') if count == 0 else (other_content, '"two"')))

            def dated(self, count):
                """A file with a date alone, replaced after the first request; If-Range is not heeded."""
                del self.headers["If-Range"]
                self.serve(content if count == 0 else other_content, etag=None,
                           date=f"Wed, 0{1 if count == 0 else 2} Jan 2025 00:00:00 GMT")

            def unversioned(self, count):
                """Parts of a file with neither ETag nor date, replaced after the first request."""
                self.serve(content if count == 0 else other_content, etag=None)

            def unversioned_cut(self, count):
                self.serve(content if count == 0 else other_content, etag=None,
                           most=len(content) // 5 if count == 0 else None)

            def weak(self, count):
                """Another file from the second request on, of the same weak ETag."""
                if self.headers.get("If-None-Match"):
                    self.refuse(304)
                else:
                    del self.headers["Range"]
                    self.serve(content if count == 0 else other_content, etag='W/"one"')

            def unfinished(self, count):
                """All bytes of each part, and then no end."""
                begin, last = self.headers["Range"].removeprefix("bytes=").split("-")
                piece = content[int(begin):int(last) + 1]
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {begin}-{int(begin) + len(piece) - 1}/{len(content)}")
                self.send_header("Transfer-Encoding", "chunked")
                self.send_header("ETag", '"one"')
                self.end_headers()
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                self.close_connection = True

            def first_part_only(self, count):
                if self.headers["Range"].startswith("bytes=0-"):
                    self.serve(content)
                else:
                    self.refuse(503)

            def rolled_back(self, count):
                """A file without ETag; from the second request on an older one."""
                del self.headers["Range"]
                if self.headers.get("If-Modified-Since"):
                    self.refuse(304)
                else:
                    body = content if count == 0 else other_content
                    self.serve(body, etag=None, date=f"Wed, 0{2 if count == 0 else 1} Jan 2025 00:00:00 GMT")

            def no_length(self, count):
                del self.headers["Range"]
                self.serve(content, length=False)

            def too_much(self, count):
                self.send_response(206)
                self.send_header("Content-Range", f"bytes 5-9/{len(content)}")
                self.send_header("Content-Length", "5")
                self.end_headers()
                self.wfile.write(content[:5])

            def hub(self, count):
                body = owner.hub_files.get(self.path)
                if body is None:
                    self.refuse(404)
                elif owner.hub_commit:  # as hubs do: the commit stands on the way to the content alone
                    content_path = self.path.replace("/hub/", "/hub-content/")
                    self.refuse(302, Location=content_path, X_Repo_Commit=owner.hub_commit)
                else:
                    self.serve(body, etag=None)

            def hub_content(self, count):
                self.serve(owner.hub_files[self.path.replace("/hub-content/", "/hub/")], etag=None)

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_):
                pass  # a client that hangs up is what some tests are about

        self.mutex = threading.Lock()
        self.closing = threading.Event()
        self.hub_files = {}
        self.hub_commit = None
        self.server = Server(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def url(self, path):
        return f"http://127.0.0.1:{self.server.server_port}/{path}"

    def stop(self):
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()

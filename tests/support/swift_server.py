"""An OpenStack Swift cluster of one node on loopback that speaks S3 and verifies signatures.

Four of Swift's own servers (account, container, object, proxy), started as they are packaged; the proxy has the
middlewares `s3api` and `tempauth`. Everything lies in one directory. `/etc/swift/swift.conf` is the package's.
"""

import collections
import contextlib
import datetime
import getpass
import hashlib
import hmac
import http.client
import pathlib
import re
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid

from web import free_port, wait_for_port

ACCESS_KEY = "test:tester"
SECRET_KEY = "testing-secret/with+signs"

STORAGE = """[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
mount_check = false
disable_fallocate = true
devices = {devices}
swift_dir = {rings}
user = {user}
log_address = {log}
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
"""

PROXY = """[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
swift_dir = {rings}
user = {user}
log_address = {log}
[pipeline:main]
pipeline = catch_errors proxy-logging cache s3api tempauth copy slo dlo proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:proxy-logging]
use = egg:swift#proxy_logging
log_msg_template = REQUEST {{method}} {{path}} {{status_int}} {{bytes_sent}}
[filter:cache]
use = egg:swift#memcache
# Nobody listens there: signatures need no cache, but tempauth wants to be given one.
memcache_servers = 127.0.0.1:{no_memcached}
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
storage_domain = localhost
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = {secret} .admin
[filter:copy]
use = egg:swift#copy
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
"""
LINE = re.compile(r"REQUEST (\S+) (\S+) (\d+) (\S+)")
Request = collections.namedtuple("Request", "method path status bytes")


def missing():
    """The program that this machine lacks, or None."""
    for program in ("swift-ring-builder", "swift-proxy-server", "swift-object-server"):
        if shutil.which(program) is None:
            return program
    return None


def _stamp(time):
    return time.strftime("%Y%m%dT%H%M%SZ")


def _scope(stamp):
    return f"{stamp[:8]}/us-east-1/s3/aws4_request"


def _signature(stamp, request):
    """Of a request in its canonical form."""
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{_scope(stamp)}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = b"AWS4" + SECRET_KEY.encode()
    for part in (*_scope(stamp).split("/"), text):
        key = hmac.new(key, part.encode(), "sha256").digest()
    return key.hex()


class Swift:
    def __init__(self):
        # Objects keep their metadata in extended attributes, which a tmpfs has not everywhere.
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="cairn-swift-", dir="/var/tmp"))
        self.processes = {}
        self.port = free_port()
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.port}"

    def requests(self):
        """What was asked for so far, in order: (method, path, status, bytes) of each request."""
        # Answers are logged when they are over. This one comes after all before it.
        marker = f"/no-such-{uuid.uuid4()}"
        with contextlib.suppress(urllib.error.HTTPError):
            urllib.request.urlopen(self.endpoint + marker, timeout=60)
        end = time.monotonic() + 60
        while time.monotonic() < end:
            lines = LINE.findall((self.dir / "proxy.log").read_text())
            if any(line[1] == marker for line in lines):
                return [Request(line[0], line[1], int(line[2]), int(line[3]) if line[3].isdigit() else 0)
                        for line in lines if not line[1].startswith("/no-such-")]
            time.sleep(0.05)
        raise RuntimeError("the proxy logs nothing:\n" + (self.dir / "proxy.log").read_text()[-2000:])

    def put(self, path, body=b""):
        """Makes a bucket or an object. The signature is this test's own."""
        path = urllib.parse.quote(path)
        stamp = _stamp(datetime.datetime.now(datetime.timezone.utc))
        digest = hashlib.sha256(body).hexdigest()
        names = "host;x-amz-content-sha256;x-amz-date"
        request = f"PUT\n{path}\n\nhost:127.0.0.1:{self.port}\nx-amz-content-sha256:{digest}\nx-amz-date:{stamp}\n" \
                  f"\n{names}\n{digest}"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("PUT", path, body, {
            "x-amz-content-sha256": digest, "x-amz-date": stamp,
            "Authorization": f"AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/{_scope(stamp)}, SignedHeaders={names}, "
                             f"Signature={_signature(stamp, request)}"})
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        if answer.status != 200:
            raise RuntimeError(f"PUT {path}: {answer.status} {text}")

    def signed_url(self, path, begins, expires):
        """The URL of an object that anybody may GET from the time `begins` on, for so many seconds."""
        path, stamp = urllib.parse.quote(path), _stamp(begins)
        query = urllib.parse.urlencode({
            "X-Amz-Algorithm": "AWS4-HMAC-SHA256", "X-Amz-Credential": f"{ACCESS_KEY}/{_scope(stamp)}",
            "X-Amz-Date": stamp, "X-Amz-Expires": expires, "X-Amz-SignedHeaders": "host"})
        request = f"GET\n{path}\n{query}\nhost:127.0.0.1:{self.port}\n\nhost\nUNSIGNED-PAYLOAD"
        return f"{self.endpoint}{path}?{query}&X-Amz-Signature={_signature(stamp, request)}"

    def stop(self):
        for process in self.processes.values():
            process.kill()
            process.wait()
        shutil.rmtree(self.dir, ignore_errors=True)

    def _start(self):
        from swift.common.ring import RingBuilder  # here, so that a machine without Swift can skip the tests

        rings, devices = self.dir / "rings", self.dir / "devices"
        rings.mkdir()
        (devices / "d1").mkdir(parents=True)
        values = {"rings": rings, "devices": devices, "user": getpass.getuser(), "log": self.dir / "no-syslog",
                  "secret": SECRET_KEY, "no_memcached": free_port()}
        texts = {"proxy": PROXY.format(port=self.port, **values)}
        ports = {"proxy": self.port}
        for kind in ("account", "container", "object"):
            ports[kind] = free_port()
            ring = RingBuilder(part_power=4, replicas=1, min_part_hours=0)
            ring.add_dev({"id": 0, "region": 1, "zone": 1, "ip": "127.0.0.1", "port": ports[kind],
                          "device": "d1", "weight": 1.0})
            ring.rebalance()
            ring.get_ring().save(str(rings / f"{kind}.ring.gz"))
            texts[kind] = STORAGE.format(kind=kind, port=ports[kind], **values)
        for kind, text in texts.items():
            self._launch(kind, text)
        for kind, process in self.processes.items():
            wait_for_port(ports[kind], process, self.dir / f"{kind}.log")

    def _launch(self, kind, text):
        config = self.dir / f"{kind}.conf"
        config.write_text(text)
        with open(self.dir / f"{kind}.log", "w") as log:
            self.processes[kind] = subprocess.Popen(
                [f"swift-{kind}-server", config, "-v"], stdout=log, stderr=log, stdin=subprocess.DEVNULL)

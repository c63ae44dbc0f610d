"""What the tests of sources over HTTP need: nginx with a file of some parts."""

import os
import random

from sources_case import SourcesCase
from web import Nginx

PART = 1 << 20
CONTENT = random.Random(1).randbytes(3 * PART + 12345)
REVERSED = CONTENT[::-1]  # as long as the other, so that its size does not tell it apart
OTHER = random.Random(2).randbytes(2 * PART + 77)


class Served(SourcesCase):
    """nginx with the file m.bin."""

    def setUp(self):
        super().setUp()
        self.files = self.dir / "files"
        self.files.mkdir()
        self.files.joinpath("m.bin").write_bytes(CONTENT)
        os.chmod(self.dir, 0o755)
        self.server = Nginx(self.files)
        self.addCleanup(self.server.stop)

    def http(self, path="m.bin", **more):
        return {"type": "http", "url": self.server.url(path), "part_bytes": PART, **more}

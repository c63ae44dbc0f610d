"""Sources from S3: an OpenStack Swift that speaks S3 and verifies every signature."""

import datetime
import pathlib
import random
import re
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import swift_server
from harness import skip_without_package
from sources_case import SourcesCase, sha256
from swift_server import ACCESS_KEY, SECRET_KEY, Swift

PART = 1 << 20
CONTENT = random.Random(3).randbytes(2 * PART + 4321)
BUCKET = "models"


class S3(SourcesCase):
    @classmethod
    def setUpClass(cls):
        if program := swift_server.missing():
            skip_without_package(f"{program} is not installed: no signature is verified")
        cls.swift = Swift()
        cls.addClassCleanup(cls.swift.stop)
        cls.swift.put(f"/{BUCKET}")
        cls.swift.put(f"/{BUCKET}/pretrained.ckpt", CONTENT)

    def s3(self, key="pretrained.ckpt", **more):
        return {"type": "s3", "bucket": BUCKET, "key": key, "endpoint": self.swift.endpoint, "part_bytes": PART,
                **more}

    def fetch(self, source, ranks=0, env=None, **more):
        keys = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "HOME": str(self.dir),
                "AWS_SESSION_TOKEN": "", "AWS_PROFILE": ""}
        result = super().fetch(source, ranks, {**keys, **(env or {})}, **more)
        self.assertNotIn(SECRET_KEY, result.stdout + result.stderr)
        return result

    def assert_refused(self, source, code, *words, env=None):
        """On any number of ranks; the text."""
        text = ""
        for ranks in (1, 2, 4):
            with self.subTest(ranks=ranks, source=source):
                text = self.assert_fails(self.fetch(source, ranks, env), code, *words, ranks=ranks)
        return text

    def test_rank_0_alone_asks_and_the_second_load_brings_no_byte(self):
        for ranks in (1, 2, 4):
            with self.subTest(ranks=ranks):
                self.cache = self.dir / f"cache{ranks}"
                before = len(self.swift.requests())
                path = self.assert_got(self.fetch(self.s3(), ranks), CONTENT, ranks)
                self.assertTrue(path.endswith("/pretrained.ckpt"))
                self.assertEqual([r.status for r in self.swift.requests()[before:]], [206] * 3)
                self.assertEqual(sum(r.bytes for r in self.swift.requests()[before:]), len(CONTENT))
                self.assert_got(self.fetch(self.s3(), ranks), CONTENT, ranks)
                self.assertEqual([r.status for r in self.swift.requests()[before + 3:]], [304])

    def test_keys_of_all_kinds_are_signed_as_they_are_sent(self):
        for key in ("with space.bin", "a+b=c@d&e.bin", "\u00fcber/\u6a21\u578b.bin", "100%.bin", "~tilde'(x)!*.bin",
                    "a?b#c.bin", "deep/er/and/deeper.bin"):
            with self.subTest(key=key):
                body = key.encode()
                self.swift.put(f"/{BUCKET}/{key}", body)
                self.assert_got(self.fetch(self.s3(key)), body)

    def test_what_the_server_refuses_is_the_same_error_on_all_ranks(self):
        wrong = {"AWS_SECRET_ACCESS_KEY": "not-" + SECRET_KEY}
        text = self.assert_refused(self.s3(), "io", "403", "SignatureDoesNotMatch", f"s3://{BUCKET}/pretrained.ckpt",
                                   env=wrong)
        self.assertNotIn(wrong["AWS_SECRET_ACCESS_KEY"], text)
        self.assert_refused(self.s3(), "io", "403", env={"AWS_ACCESS_KEY_ID": "nobody:atall"})
        # Without a signature, this server does not even take it for S3.
        self.assert_refused(self.s3(anonymous=True), "io", "400")
        self.assert_refused(self.s3(region="eu-1"), "io", "AuthorizationHeaderMalformed")
        self.assert_refused(self.s3("nope"), "not_found", "NoSuchKey")
        self.assert_refused(self.s3(bucket="no-such-bucket"), "not_found", "NoSuchBucket")

    def test_a_signed_url_counts_until_it_expires(self):
        minute_ago = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(minutes=1)
        for expires in (3600, 1):
            url = self.swift.signed_url(f"/{BUCKET}/pretrained.ckpt", minute_ago, expires)
            source = {"type": "http", "url": url}
            if expires == 3600:
                self.assert_got(self.fetch(source, ranks=2), CONTENT, ranks=2)
            else:
                text = self.assert_refused(source, "io", "403", "forbidden")
                self.assertNotIn(re.search("X-Amz-Signature=(.*)", url).group(1), text)

    def test_credentials_of_a_profile(self):
        (self.dir / "credentials").write_text(
            f"[default]\naws_access_key_id = x\naws_secret_access_key = y\n\n# mine\n[mine]\n"
            f"aws_access_key_id={ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n")
        none = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "",
                "AWS_SHARED_CREDENTIALS_FILE": str(self.dir / "credentials")}
        self.assert_got(self.fetch(self.s3(profile="mine"), env=none), CONTENT)
        self.cache = self.dir / "cache2"
        self.assert_got(self.fetch(self.s3(), env={**none, "AWS_PROFILE": "mine"}), CONTENT)
        self.assert_refused(self.s3(), "io", "403", env=none)
        self.assert_refused(self.s3(profile="theirs"), "usage", "theirs", env=none)
        half = {**none, "AWS_ACCESS_KEY_ID": ACCESS_KEY}
        self.assert_refused(self.s3(), "usage", "the environment", env=half)
        gone = {**none, "AWS_SHARED_CREDENTIALS_FILE": "/nowhere/credentials"}
        self.assert_refused(self.s3(), "not_found", "/nowhere/credentials", env=gone)

    def test_the_bucket_in_the_name_of_the_host(self):
        endpoint = f"http://localhost:{self.swift.port}"
        self.assert_got(self.fetch(self.s3(style="virtual", endpoint=endpoint)), CONTENT)

    def test_the_endpoint_of_the_environment(self):
        source = {**self.s3(), "endpoint": None}
        self.assert_got(self.fetch(source, env={"AWS_ENDPOINT_URL": self.swift.endpoint}), CONTENT)

    def test_the_digest_is_checked(self):
        self.assert_got(self.fetch(self.s3(sha256=sha256(CONTENT))), CONTENT)
        self.assert_refused(self.s3(sha256="1" * 64), "corrupt", "1" * 64)


if __name__ == "__main__":
    unittest.main()

// What sources make of URLs and of what servers say.
#include <gtest/gtest.h>

#include "cairn/error.hpp"
#include "sources/progress.hpp"
#include "sources/s3.hpp"
#include "sources/url.hpp"

namespace cairn::detail {
namespace {

TEST(Urls, AreKnownWithoutWhatSignsThem) {
  EXPECT_EQ(url_without_secrets("https://u:p@host/a/b?X-Amz-Signature=s&id=3&token=t&b#f"),
            "https://host/a/b?id=3&b");
  EXPECT_EQ(url_without_secrets("https://host/a?Expires=1&Signature=x"), "https://host/a");
  EXPECT_EQ(url_without_secrets("https://host/a?"), "https://host/a");
  EXPECT_EQ(url_without_secrets("https://host#?x=1"), "https://host");
}

TEST(Urls, GiveNamesThatStayInTheirDirectory) {
  EXPECT_EQ(file_name_of("/a/model.safetensors?x=/y"), "model.safetensors");
  EXPECT_EQ(file_name_of("/a/"), "file");
  EXPECT_EQ(file_name_of(".."), "_.");
  EXPECT_EQ(file_name_of("/.entry"), "_entry");
  EXPECT_EQ(file_name_of("a%2Fb\n\xff"), "a_2Fb__");
  EXPECT_EQ(file_name_of(std::string(500, 'x') + ".pt").size(), 128U);
}

TEST(Urls, AreEncodedAsAmazonEncodes) {
  EXPECT_EQ(percent_encoded("a b/~c+d=\xc3\xbc", "/"), "a%20b/~c%2Bd%3D%C3%BC");
  EXPECT_EQ(percent_encoded("a/b"), "a%2Fb");
}

TEST(Urls, MustBeOfHttp) {
  const Url url = parse_url("https://u@[::1]:8443/a//../b?q#f");
  EXPECT_EQ(url.host, "[::1]:8443");
  EXPECT_EQ(url.path, "/a//../b");
  EXPECT_TRUE(url.has_user && url.has_query);
  EXPECT_EQ(parse_url("http://host:80").host, "host");
  EXPECT_EQ(parse_url("http://host").path, "/");
  for (const char* text :
       {"", "host/a", "ftp://host/a", "file:///etc/passwd", "http://", "http://a b/"}) {
    try {
      parse_url(text);
      ADD_FAILURE() << text;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Errc::usage) << text;
    }
  }
}

TEST(Urls, ShowNoPasswordEvenWhereTheyAreWrong) {
  for (const std::string url :
       {"https://me:pa/ss@host/f", "https:///me:ss@host/f", "https:/me:ss@host/f", "me:ss@host/f",
        "ss@host/f", "://me:ss@host/f", "https://me:pa?ss@host/f", "ftp://me:ss@host/f"}) {
    EXPECT_EQ(masked_url(url).find("ss@"), std::string::npos) << masked_url(url);
    try {
      parse_url(url);
      ADD_FAILURE() << url;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Errc::usage) << url;
      EXPECT_NE(std::string(error.what()).find("'***'"), std::string::npos) << error.what();
    }
  }
  EXPECT_EQ(masked_url("https://me:12/ss@host/f"), "https://***");
  EXPECT_EQ(masked_url("https://host/a@b"), "https://host/a@b");
  EXPECT_EQ(masked_url("/data/a"), "/data/a");
}

TEST(S3Refusals, AreTold) {
  EXPECT_EQ(
      explain_s3("<?xml version=\"1.0\"?><Error><Code>ExpiredToken</Code><Message>The provided "
                 "token has &lt;expired&gt;.\n</Message><Token>secret</Token></Error>"),
      "ExpiredToken: The provided token has <expired>. ");
  EXPECT_EQ(explain_s3("<Error><Code>AccessDenied</Code></Error>"), "AccessDenied");
  EXPECT_EQ(explain_s3("<html>no</html>"), "");
  EXPECT_EQ(explain_s3("<Error><Code>"), "");
  EXPECT_LT(explain_s3("<Code>x</Code><Message>" + std::string(10'000, 'y') + "</Message>").size(),
            400U);
}

TEST(Progress, IsOneLine) {
  EXPECT_EQ(progress_text("m", {512 << 10, 1 << 20}, 2), "m: 50 % of 1 MiB, 256 KiB/s");
  EXPECT_EQ(progress_text("m", {100, 0}, 0), "m: 100 B");
}

}  // namespace
}  // namespace cairn::detail

// What sources make of URLs and of what servers say.
#include <gtest/gtest.h>

#include <string>

#include "base/text.hpp"
#include "cairn/error.hpp"
#include "sources/http.hpp"
#include "sources/progress.hpp"
#include "sources/s3.hpp"
#include "sources/url.hpp"

namespace cairn::detail {
namespace {

TEST(Urls, AreKnownWithoutWhatSignsThem) {
  const auto known = [](const char* url) { return url_without_signature(url); };
  EXPECT_EQ(known("https://u:p@host/a/b?X-Amz-Date=1&X-Amz-Signature=s&id=3&b#f"),
            "https://host/a/b?id=3&b");
  EXPECT_EQ(known("https://host/a?Expires=1&Signature=x&Key-Pair-Id=k&Policy=p"), "https://host/a");
  EXPECT_EQ(known("https://host/a?X-Goog-Signature=1&X-Goog-Expires=2&=3"), "https://host/a?=3");
  EXPECT_EQ(known("https://host/a?sv=1&sr=b&sig=x&se=2&snapshot=3"), "https://host/a?snapshot=3");
  EXPECT_EQ(known("https://host/a?"), "https://host/a");
  EXPECT_EQ(known("https://host#?x=1"), "https://host");
}

TEST(Urls, AreKnownByEverythingWhereNothingSignsThem) {
  for (const char* url : {"https://host/share?token=A", "https://host/a?policy=1&expires=2",
                          "https://host/a?sr=1&se=2", "https://host/a?access_token=t",
                          "https://host/a?X-Amz-Date=1&sig-no=2"}) {
    EXPECT_EQ(url_without_signature(url), url);
  }
}

TEST(Digests, ThatSomebodyGaveAreCheckedBeforeAnythingIsFetched) {
  const std::string lower = std::string(32, 'a') + std::string(32, '1');
  const std::string upper = std::string(32, 'A') + std::string(32, '1');
  EXPECT_EQ(remote_of(HttpSource{"http://host/a", upper}).sha256, lower);
  S3Source s3{"bucket", "key"};
  s3.sha256 = upper;
  s3.anonymous = true;
  EXPECT_EQ(remote_of(s3).sha256, lower);
  for (const std::string& text :
       {std::string("../x"), std::string("abc"), "g" + lower.substr(1), lower + "0"}) {
    try {
      remote_of(HttpSource{"http://host/a", text});
      ADD_FAILURE() << text;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Errc::usage) << text;
    }
  }
}

TEST(Indexes, AreNotFetchedWithoutTheirShards) {
  const auto error_of = [](const auto& source) {
    try {
      remote_of(source);
    } catch (const Error& error) {
      return std::string(to_string(error.code())) + " " + error.what();
    }
    return std::string("no error");
  };
  const std::string name = "m/model.safetensors.index.json";
  for (const std::string& error : {error_of(HttpSource{"https://u:pass@host/" + name + "?s=sig"}),
                                   error_of(S3Source{"bucket", name})}) {
    EXPECT_EQ(error.find("unsupported '"), 0U) << error;
    for (const char* word : {name.c_str(), "huggingface", "local"}) {
      EXPECT_NE(error.find(word), std::string::npos) << error;
    }
    for (const char* secret : {"pass", "sig"}) EXPECT_EQ(error.find(secret), std::string::npos);
  }
  EXPECT_EQ(error_of(HttpSource{"https://host/index.json?x=.index.json"}), "no error");
}

TEST(Texts, OfOthersAreShownAsOneLine) {
  EXPECT_EQ(printable("a\nb\x1b[31m\x7f\xc3\xbc"), "a b [31m \xc3\xbc");
  EXPECT_EQ(printable(std::string(301, 'x')), std::string(300, 'x') + "...");
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

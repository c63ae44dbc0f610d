// The signatures that Amazon published: the Signature Version 4 test suite (aws-sig-v4-test-suite,
// made for a service called "service"), and the examples of "Authenticating Requests (AWS Signature
// Version 4)" of S3.
#include "sources/sigv4.hpp"

#include <gtest/gtest.h>

#include <string>

#include "base/sha256.hpp"

namespace cairn::detail {
namespace {

const std::string kNothing = to_hex(sha256_of(""));
const AwsCredentials kSuite{"AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"};
const AwsCredentials kS3{"AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"};

std::string signature(const std::string& authorization) {
  return authorization.substr(authorization.rfind('=') + 1);
}

std::string suite(RequestToSign request) {
  request.headers.emplace("host", "example.amazonaws.com");
  request.headers.emplace("x-amz-date", "20150830T123600Z");
  request.payload_sha256 = kNothing;
  return sign_v4(request, kSuite, "us-east-1", "service", "20150830T123600Z");
}

TEST(SigV4, SignsTheTestSuiteAsPublished) {
  EXPECT_EQ(suite({"GET", "/", "", {}, ""}),
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
            "SignedHeaders=host;x-amz-date, "
            "Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31");
  EXPECT_EQ(signature(suite({"GET", "/%E1%88%B4", "", {}, ""})),
            "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85");
  EXPECT_EQ(signature(suite({"GET", "/", "Param1=value1&Param2=value2", {}, ""})),
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500");
  EXPECT_EQ(signature(suite({"POST", "/", "", {}, ""})),
            "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b");
  // post-sts-header-before
  EXPECT_EQ(
      signature(suite({"POST",
                       "/",
                       "",
                       {{"x-amz-security-token",
                         "AQoDYXdzEPT//////////"
                         "wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSP"
                         "fIeoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/"
                         "kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT"
                         "7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+"
                         "xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlz"
                         "m8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA=="}},
                       ""})),
      "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead");
  // get-header-value-trim
  EXPECT_EQ(
      signature(suite(
          {"GET", "/", "", {{"my-header1", " value1"}, {"my-header2", " \"a   b   c\""}}, ""})),
      "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736");
}

RequestToSign of_bucket(const std::string& path, const std::string& query) {
  return {"GET",
          path,
          query,
          {{"host", "examplebucket.s3.amazonaws.com"},
           {"x-amz-content-sha256", kNothing},
           {"x-amz-date", "20130524T000000Z"}},
          kNothing};
}

TEST(SigV4, SignsTheExamplesOfS3AsPublished) {
  auto object = of_bucket("/test.txt", "");
  object.headers.emplace("range", "bytes=0-9");
  EXPECT_EQ(signature(sign_v4(object, kS3, "us-east-1", "s3", "20130524T000000Z")),
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
  EXPECT_EQ(
      signature(sign_v4(of_bucket("/", "lifecycle="), kS3, "us-east-1", "s3", "20130524T000000Z")),
      "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");
  EXPECT_EQ(signature(sign_v4(of_bucket("/", "max-keys=2&prefix=J"), kS3, "us-east-1", "s3",
                              "20130524T000000Z")),
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
}

TEST(SigV4, WritesTimesInUtc) {
  using namespace std::chrono;
  EXPECT_EQ(amz_date(sys_days(year(2015) / 8 / 30) + hours(12) + minutes(36)), "20150830T123600Z");
}

}  // namespace
}  // namespace cairn::detail

#pragma once

#include <chrono>
#include <map>
#include <string>

namespace cairn::detail {

struct AwsCredentials {
  std::string key_id;
  std::string secret;
  std::string session_token = {};
  bool operator==(const AwsCredentials&) const = default;
};

/// A request as AWS Signature Version 4 sees it.
struct RequestToSign {
  std::string method = "GET";
  std::string path;        ///< as it is sent, percent-encoded once: S3 signs it as it stands
  std::string query = {};  ///< encoded and sorted
  std::map<std::string, std::string> headers;  ///< names in lower case; all are signed
  std::string payload_sha256;                  ///< of the body, in hexadecimal
};

/// The value of the header Authorization. `timestamp` is that of the header x-amz-date. Local.
std::string sign_v4(const RequestToSign& request, const AwsCredentials& credentials,
                    const std::string& region, const std::string& service,
                    const std::string& timestamp);

/// "20150830T123600Z"
std::string amz_date(std::chrono::system_clock::time_point time);

}  // namespace cairn::detail

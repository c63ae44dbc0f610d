#include "sources/sigv4.hpp"

#include <fmt/format.h>

#include <ctime>

#include "base/sha256.hpp"

namespace cairn::detail {
namespace {

constexpr std::string_view kAlgorithm = "AWS4-HMAC-SHA256";

/// A header's value as it is signed: no blanks at the ends, one blank for several.
std::string canonical_value(const std::string& value) {
  std::string text;
  for (const char c : value) {
    if (c == ' ' && (text.empty() || text.back() == ' ')) continue;
    text += c;
  }
  if (!text.empty() && text.back() == ' ') text.pop_back();
  return text;
}

}  // namespace

std::string sign_v4(const RequestToSign& request, const AwsCredentials& credentials,
                    const std::string& region, const std::string& service,
                    const std::string& timestamp) {
  std::string headers;
  std::string names;
  for (const auto& [name, value] : request.headers) {
    headers += fmt::format("{}:{}\n", name, canonical_value(value));
    names += (names.empty() ? "" : ";") + name;
  }
  const std::string canonical = fmt::format("{}\n{}\n{}\n{}\n{}\n{}", request.method, request.path,
                                            request.query, headers, names, request.payload_sha256);
  const std::string day = timestamp.substr(0, 8);
  const std::string scope = fmt::format("{}/{}/{}/aws4_request", day, region, service);
  const std::string to_sign =
      fmt::format("{}\n{}\n{}\n{}", kAlgorithm, timestamp, scope, to_hex(sha256_of(canonical)));
  const std::string first_key = "AWS4" + credentials.secret;
  Sha256Digest key = hmac_sha256(std::as_bytes(std::span(first_key)), day);
  for (const std::string_view part :
       {std::string_view(region), std::string_view(service), std::string_view("aws4_request")}) {
    key = hmac_sha256(key, part);
  }
  return fmt::format("{} Credential={}/{}, SignedHeaders={}, Signature={}", kAlgorithm,
                     credentials.key_id, scope, names, to_hex(hmac_sha256(key, to_sign)));
}

std::string amz_date(std::chrono::system_clock::time_point time) {
  const std::time_t seconds = std::chrono::system_clock::to_time_t(time);
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  return fmt::format("{:04}{:02}{:02}T{:02}{:02}{:02}Z", utc.tm_year + 1900, utc.tm_mon + 1,
                     utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec);
}

}  // namespace cairn::detail

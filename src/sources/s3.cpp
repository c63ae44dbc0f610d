#include "sources/s3.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <utility>

#include "base/sha256.hpp"
#include "base/throw.hpp"
#include "sources/aws_profile.hpp"
#include "sources/http.hpp"
#include "sources/url.hpp"

namespace cairn::detail {
namespace {

constexpr std::size_t kMostText = 300;

std::string endpoint_of(const S3Source& source) {
  if (!source.endpoint.empty()) return source.endpoint;
  for (const char* name : {"AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"}) {
    const char* value = std::getenv(name);
    if (value != nullptr && *value != '\0') return value;
  }
  return {};
}

struct Address {
  std::string scheme;
  std::string host;
  std::string path;  ///< as it is sent and signed
};

Address address_of(const S3Source& source, const std::string& region) {
  const std::string given = endpoint_of(source);
  const std::string own =
      fmt::format("https://s3.{}.amazonaws.com{}", region, region.starts_with("cn-") ? ".cn" : "");
  const Url endpoint = parse_url(given.empty() ? own : given);
  if (endpoint.has_user || endpoint.has_query) {
    fail(Errc::usage,
         "the endpoint '{}' must be scheme, host and port alone; credentials belong in the "
         "environment or a profile",
         masked_url(given));
  }
  const bool in_path = source.style == S3Style::path ||
                       (source.style == S3Style::automatic &&
                        (!given.empty() || source.bucket.find('.') != std::string::npos));
  std::string prefix = endpoint.path;
  while (prefix.ends_with('/')) prefix.pop_back();
  const std::string key = percent_encoded(source.key, "/");
  if (in_path) {
    return {endpoint.scheme, endpoint.host,
            fmt::format("{}/{}/{}", prefix, percent_encoded(source.bucket), key)};
  }
  return {endpoint.scheme, fmt::format("{}.{}", source.bucket, endpoint.host),
          fmt::format("{}/{}", prefix, key)};
}

void check_bucket(const S3Source& source) {
  const auto odd = [](unsigned char c) {
    return std::isalnum(c) == 0 && c != '-' && c != '.' && c != '_';
  };
  if (source.bucket.empty() || std::any_of(source.bucket.begin(), source.bucket.end(), odd)) {
    fail(Errc::usage, "'{}' is no name of a bucket", source.bucket);
  }
  if (source.key.empty())
    fail(Errc::usage, "the key of the object in '{}' is empty", source.bucket);
}

std::vector<std::string> signed_headers(const Address& address, const AwsCredentials& credentials,
                                        const std::string& region) {
  const std::string date = amz_date(std::chrono::system_clock::now());
  RequestToSign request;
  request.path = address.path;
  request.payload_sha256 = to_hex(sha256_of(""));
  request.headers = {{"host", address.host},
                     {"x-amz-content-sha256", request.payload_sha256},
                     {"x-amz-date", date}};
  if (!credentials.session_token.empty()) {
    request.headers["x-amz-security-token"] = credentials.session_token;
  }
  std::vector<std::string> lines{"Authorization: " +
                                 sign_v4(request, credentials, region, "s3", date)};
  for (const auto& [name, value] : request.headers) lines.push_back(name + ": " + value);
  return lines;
}

std::string_view element(std::string_view xml, std::string_view name) {
  const std::string open = fmt::format("<{}>", name);
  const auto begin = xml.find(open);
  if (begin == std::string_view::npos) return {};
  const auto text = xml.substr(begin + open.size());
  const auto end = text.find('<');
  return end == std::string_view::npos ? std::string_view() : text.substr(0, end);
}

/// The text of an element as it may be shown.
std::string plain(std::string_view xml) {
  constexpr std::array<std::pair<std::string_view, char>, 5> kEntities{
      {{"&lt;", '<'}, {"&gt;", '>'}, {"&quot;", '"'}, {"&apos;", '\''}, {"&amp;", '&'}}};
  std::string text;
  while (!xml.empty() && text.size() < kMostText) {
    const auto entity = std::find_if(kEntities.begin(), kEntities.end(),
                                     [&](const auto& e) { return xml.starts_with(e.first); });
    const char c = entity == kEntities.end() ? xml.front() : entity->second;
    text += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? ' ' : c;
    xml.remove_prefix(entity == kEntities.end() ? 1 : entity->first.size());
  }
  return text;
}

}  // namespace

std::string explain_s3(std::string_view body) {
  const std::string code = plain(element(body, "Code"));
  const std::string message = plain(element(body, "Message"));
  if (code.empty() || message.empty()) return code + message;
  return fmt::format("{}: {}", code, message);
}

Remote remote_of(const S3Source& source) {
  check_bucket(source);
  const AwsSettings aws = aws_settings(source);
  const Address address = address_of(source, aws.region);
  Remote remote{.url = fmt::format("{}://{}{}", address.scheme, address.host, address.path),
                .shown = describe(source),
                .name = file_name_of(source.key),
                .ca_file = ca_file_of(source.fetch.ca_file),
                .follow_redirects = false,
                .explain = explain_s3};
  if (source.fetch.ca_file.empty()) {
    const char* bundle = std::getenv("AWS_CA_BUNDLE");
    if (bundle != nullptr && *bundle != '\0') remote.ca_file = bundle;
  }
  if (aws.credentials) {
    remote.headers = [address, credentials = *aws.credentials, region = aws.region] {
      return signed_headers(address, credentials, region);
    };
  }
  return remote;
}

}  // namespace cairn::detail

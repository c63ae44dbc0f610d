#include "sources/s3.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "base/sha256.hpp"
#include "base/text.hpp"
#include "base/throw.hpp"
#include "os/environment.hpp"
#include "sources/aws_profile.hpp"
#include "sources/http.hpp"
#include "sources/url.hpp"

namespace cairn::detail {
namespace {

std::string endpoint_of(const S3Source& source) {
  if (!source.endpoint.empty()) return source.endpoint;
  for (const char* name : {"AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"}) {
    if (std::string url = environment(name); !url.empty()) return url;
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
  const Url endpoint = parse_endpoint(given.empty() ? own : given);
  const bool in_path = source.style == S3Style::path ||
                       (source.style == S3Style::automatic &&
                        (!given.empty() || source.bucket.find('.') != std::string::npos));
  const std::string key = percent_encoded(source.key, "/");
  if (in_path) {
    return {endpoint.scheme, endpoint.host,
            fmt::format("{}/{}/{}", endpoint.path, percent_encoded(source.bucket), key)};
  }
  return {endpoint.scheme, fmt::format("{}.{}", source.bucket, endpoint.host),
          fmt::format("{}/{}", endpoint.path, key)};
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
  while (!xml.empty()) {
    const auto entity = std::find_if(kEntities.begin(), kEntities.end(),
                                     [&](const auto& e) { return xml.starts_with(e.first); });
    text += entity == kEntities.end() ? xml.front() : entity->second;
    xml.remove_prefix(entity == kEntities.end() ? 1 : entity->first.size());
  }
  return printable(text);
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
  require_whole(source.key, describe(source));
  const AwsSettings aws = aws_settings(source);
  const Address address = address_of(source, aws.region);
  Remote remote{.url = fmt::format("{}://{}{}", address.scheme, address.host, address.path),
                .shown = describe(source),
                .name = file_name_of(source.key),
                .sha256 = expected_sha256(source.sha256),
                .ca_file = ca_file_of(source.fetch.ca_file),
                .follow_redirects = false,
                .explain = explain_s3};
  if (source.fetch.ca_file.empty()) {
    const std::string bundle = environment("AWS_CA_BUNDLE");
    if (!bundle.empty()) remote.ca_file = bundle;
  }
  if (aws.credentials) {
    remote.headers = [address, credentials = *aws.credentials, region = aws.region] {
      return signed_headers(address, credentials, region);
    };
  }
  return remote;
}

}  // namespace cairn::detail

#include "sources/url.hpp"

#include <curl/curl.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <memory>
#include <utility>
#include <vector>

#include "base/text.hpp"
#include "base/throw.hpp"

namespace cairn::detail {
namespace {

/// A URL cut at its joints, without looking at what is between them.
struct Pieces {
  std::string_view scheme;  ///< with "://"; empty: no URL
  std::string_view user;    ///< with "@"
  std::string_view host_and_path;
  std::string_view tail;  ///< from "?" or "#"
};

Pieces cut(std::string_view text) {
  const auto scheme = text.find("://");
  if (scheme == std::string_view::npos) return {};
  Pieces pieces;
  pieces.scheme = text.substr(0, scheme + 3);
  text.remove_prefix(scheme + 3);
  const auto host_end = std::min(text.find_first_of("/?#"), text.size());
  if (const auto at = text.substr(0, host_end).rfind('@'); at != std::string_view::npos) {
    pieces.user = text.substr(0, at + 1);
    text.remove_prefix(at + 1);
  }
  const auto tail = std::min(text.find_first_of("?#"), text.size());
  pieces.host_and_path = text.substr(0, tail);
  pieces.tail = text.substr(tail);
  return pieces;
}

/// A way to sign a URL for whoever has it: the parameter that is the signature, and what else
/// changes from one signature to the next. The same names mean other things where there is none.
struct Signature {
  std::string_view name;
  std::string_view prefix;  ///< of the names of more parameters; empty: of none
  std::array<std::string_view, 12> more;
};

// Of Amazon's and Google's object stores (versions 4 and 2; CloudFront), and of Azure's.
constexpr std::array<Signature, 4> kSignatures{{
    {"x-amz-signature", "x-amz-", {}},
    {"x-goog-signature", "x-goog-", {}},
    {"signature",
     "x-amz-",
     {"awsaccesskeyid", "googleaccessid", "expires", "key-pair-id", "policy"}},
    {"sig",
     {},
     {"se", "sp", "sv", "sr", "st", "spr", "skoid", "sktid", "skt", "ske", "sks", "skv"}},
}};

std::string name_of(std::string_view parameter) {
  return lower_case(parameter.substr(0, parameter.find('=')));
}

bool belongs_to(const Signature& signature, std::string_view name) {
  const auto& more = signature.more;
  if (name.empty()) return false;
  return name == signature.name ||
         (!signature.prefix.empty() && name.starts_with(signature.prefix)) ||
         std::find(more.begin(), more.end(), name) != more.end();
}

std::vector<std::string_view> parameters_of(std::string_view query) {
  std::vector<std::string_view> parameters;
  while (!query.empty()) {
    query.remove_prefix(1);  // the separator
    parameters.push_back(query.substr(0, query.find('&')));
    query.remove_prefix(parameters.back().size());
  }
  return parameters;
}

/// Whether an "@" stands where a password that is not well encoded may have moved it: outside a
/// URL, or behind what is neither a host nor a host with a port.
bool is_doubtful(const Pieces& pieces, std::string_view text) {
  if (pieces.scheme.empty()) return text.find('@') != std::string_view::npos;
  if (pieces.host_and_path.find('@') == std::string_view::npos) return false;
  const auto host = pieces.host_and_path.substr(0, pieces.host_and_path.find('/'));
  return host.empty() || host.find(':') != std::string_view::npos;
}

bool is_plain(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '.' || c == '_' ||
         c == '~';
}

}  // namespace

std::string masked_url(std::string_view text) {
  const Pieces pieces = cut(text);
  if (is_doubtful(pieces, text)) return fmt::format("{}***", pieces.scheme);
  if (pieces.scheme.empty()) return std::string(text);
  return fmt::format("{}{}{}{}", pieces.scheme, pieces.user.empty() ? "" : "***@",
                     pieces.host_and_path, pieces.tail.empty() ? "" : "?***");
}

std::string url_without_signature(std::string_view url) {
  const Pieces pieces = cut(url);
  const auto parameters = parameters_of(pieces.tail.substr(0, pieces.tail.find('#')));
  const auto signs = [&](std::string_view name) {
    return std::any_of(kSignatures.begin(), kSignatures.end(), [&](const Signature& signature) {
      return belongs_to(signature, name) &&
             std::any_of(parameters.begin(), parameters.end(),
                         [&](auto parameter) { return name_of(parameter) == signature.name; });
    });
  };
  std::string text = fmt::format("{}{}", pieces.scheme, pieces.host_and_path);
  char separator = '?';
  for (const std::string_view parameter : parameters) {
    if (parameter.empty() || signs(name_of(parameter))) continue;
    text += fmt::format("{}{}", std::exchange(separator, '&'), parameter);
  }
  return text;
}

std::string percent_encoded(std::string_view text, std::string_view also) {
  std::string result;
  for (const char c : text) {
    if (is_plain(c) || also.find(c) != std::string_view::npos) {
      result += c;
    } else {
      result += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
  }
  return result;
}

std::string file_name_of(std::string_view path) {
  constexpr std::size_t kMostBytes = 128;
  path = path.substr(0, path.find_first_of("?#"));
  if (const auto slash = path.rfind('/'); slash != std::string_view::npos) {
    path.remove_prefix(slash + 1);
  }
  if (path.size() > kMostBytes) path.remove_prefix(path.size() - kMostBytes);  // keeps the suffix
  std::string name(path);
  std::replace_if(
      name.begin(), name.end(), [](char c) { return !is_plain(c); }, '_');
  if (name.empty()) return "file";
  if (name.front() == '.') name.front() = '_';
  return name;
}

Url parse_url(const std::string& text) {
  // What is no URL has no place where a password is known to end.
  const std::string shown = text.find('@') == std::string::npos ? masked_url(text) : "***";
  const Pieces pieces = cut(text);
  // libcurl would guess the scheme, and would look for the host behind more slashes.
  if (pieces.scheme.size() <= 3 || pieces.host_and_path.empty() ||
      pieces.host_and_path.front() == '/') {
    fail(Errc::usage,
         "'{}' is not a URL of a file: it must begin with http:// or https:// and a host", shown);
  }
  const std::unique_ptr<CURLU, decltype(&curl_url_cleanup)> url(curl_url(), curl_url_cleanup);
  if (url == nullptr) fail(Errc::io, "out of memory");
  if (const CURLUcode code = curl_url_set(url.get(), CURLUPART_URL, text.c_str(), 0);
      code != CURLUE_OK) {
    fail(Errc::usage, "'{}' is not a URL: {}", shown, curl_url_strerror(code));
  }
  const auto part = [&](CURLUPart what, unsigned flags = 0) -> std::string {
    char* value = nullptr;
    if (curl_url_get(url.get(), what, &value, flags) != CURLUE_OK) return {};
    const std::unique_ptr<char, decltype(&curl_free)> owner(value, curl_free);
    return value;
  };
  Url result{part(CURLUPART_SCHEME), part(CURLUPART_HOST), {}, !part(CURLUPART_USER).empty(), {}};
  if ((result.scheme != "http" && result.scheme != "https") || result.host.empty()) {
    fail(Errc::usage, "'{}' is not a URL of a file: it must begin with http:// or https://", shown);
  }
  const std::string port = part(CURLUPART_PORT, CURLU_NO_DEFAULT_PORT);
  if (!port.empty()) result.host += ":" + port;
  const auto slash = pieces.host_and_path.find('/');
  result.path = slash == std::string_view::npos ? "/" : pieces.host_and_path.substr(slash);
  result.has_query = !pieces.tail.empty();
  return result;
}

Url parse_endpoint(const std::string& text) {
  Url endpoint = parse_url(text);
  if (endpoint.has_user || endpoint.has_query) {
    fail(Errc::usage,
         "the endpoint '{}' must be scheme, host, port and path alone; credentials belong in the "
         "environment or a profile",
         masked_url(text));
  }
  while (endpoint.path.ends_with('/')) endpoint.path.pop_back();
  return endpoint;
}

}  // namespace cairn::detail

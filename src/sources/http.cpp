#include "sources/http.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>

#include "base/throw.hpp"
#include "sources/local.hpp"
#include "sources/url.hpp"

namespace cairn::detail {

std::vector<std::string> bearer_header(const std::string& variable) {
  const char* token = variable.empty() ? nullptr : std::getenv(variable.c_str());
  if (token == nullptr || *token == '\0') return {};
  const std::string_view text(token);
  if (std::any_of(text.begin(), text.end(), [](char c) { return c <= ' ' || c > '~'; })) {
    fail(Errc::usage, "${} does not hold a token: there are blanks or control characters in it",
         variable);
  }
  return {fmt::format("Authorization: Bearer {}", text)};
}

std::filesystem::path ca_file_of(const std::filesystem::path& given) {
  if (!given.empty()) return expand_home(given);
  for (const char* name : {"CURL_CA_BUNDLE", "SSL_CERT_FILE"}) {
    const char* value = std::getenv(name);
    if (value != nullptr && *value != '\0') return value;
  }
  return {};
}

Remote remote_of(const HttpSource& source) {
  const Url url = parse_url(source.url);
  if (!source.token_env.empty() && bearer_header(source.token_env).empty()) {
    fail(Errc::usage, "checkpoint.source.token_env names ${}, which is not set", source.token_env);
  }
  return {.url = source.url,
          .shown = masked_url(source.url),
          .name = file_name_of(url.path),
          .ca_file = ca_file_of(source.fetch.ca_file),
          .headers = [variable = source.token_env] { return bearer_header(variable); }};
}

}  // namespace cairn::detail

#include "sources/http.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "base/sha256.hpp"
#include "base/text.hpp"
#include "base/throw.hpp"
#include "os/environment.hpp"
#include "sources/local.hpp"
#include "sources/url.hpp"

namespace cairn::detail {

std::vector<std::string> bearer_header(const std::string& variable) {
  const std::string text = variable.empty() ? "" : environment(variable);
  if (text.empty()) return {};
  if (std::any_of(text.begin(), text.end(), [](char c) { return c <= ' ' || c > '~'; })) {
    fail(Errc::usage, "${} does not hold a token: there are blanks or control characters in it",
         variable);
  }
  return {fmt::format("Authorization: Bearer {}", text)};
}

std::filesystem::path ca_file_of(const std::filesystem::path& given) {
  if (!given.empty()) return expand_home(given);
  for (const char* name : {"CURL_CA_BUNDLE", "SSL_CERT_FILE"}) {
    if (const std::string file = environment(name); !file.empty()) return file;
  }
  return {};
}

std::string expected_sha256(const std::string& given) {
  if (given.empty()) return {};
  if (const auto sha256 = parse_sha256(given)) return *sha256;
  fail(Errc::usage, "the sha256 of a source must be 64 hexadecimal digits, not '{}'",
       printable(given));
}

void require_whole(const std::string& name, const std::string& shown) {
  if (!name.ends_with(kIndexSuffix)) return;
  fail(Errc::unsupported,
       "'{}' is the index of a model in several files, and this type of source fetches one file; "
       "use the type huggingface, where a hub has the model, or get all files into a directory and "
       "use the type local",
       shown);
}

Remote remote_of(const HttpSource& source) {
  const Url url = parse_url(source.url);
  require_whole(file_name_of(url.path), masked_url(source.url));
  if (!source.token_env.empty() && bearer_header(source.token_env).empty()) {
    fail(Errc::usage, "checkpoint.source.token_env names ${}, which is not set", source.token_env);
  }
  return {.url = source.url,
          .shown = masked_url(source.url),
          .name = file_name_of(url.path),
          .sha256 = expected_sha256(source.sha256),
          .ca_file = ca_file_of(source.fetch.ca_file),
          .headers = [variable = source.token_env] { return bearer_header(variable); }};
}

}  // namespace cairn::detail

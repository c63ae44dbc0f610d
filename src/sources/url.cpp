#include "sources/url.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace cairn::detail {

std::string masked_url(std::string_view text) {
  const auto scheme = text.find("://");
  if (scheme == std::string_view::npos) return std::string(text);
  const auto begin = scheme + 3;
  std::string_view host = text.substr(begin);
  std::string_view tail;
  if (const auto end = host.find_first_of("/?#"); end != std::string_view::npos) {
    tail = host.substr(end);
    host = host.substr(0, end);
  }
  const auto at = host.rfind('@');
  const auto query = tail.find_first_of("?#");
  return fmt::format("{}{}{}{}{}", text.substr(0, begin),
                     at == std::string_view::npos ? "" : "***@",
                     at == std::string_view::npos ? host : host.substr(at + 1),
                     tail.substr(0, query), query == std::string_view::npos ? "" : "?***");
}

std::string percent_encoded(std::string_view text, bool keep_slashes) {
  std::string encoded;
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '-' || c == '.' || c == '_' || c == '~' || (c == '/' && keep_slashes);
    encoded += plain ? std::string(1, c) : fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return encoded;
}

bool is_plain_name(std::string_view name) {
  return !name.empty() && name != "." && name != ".." && name.size() <= 200 &&
         std::none_of(name.begin(), name.end(), [](char c) {
           return c == '/' || c == '\\' || static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
         });
}

std::string file_name_of(std::string_view url) {
  url = url.substr(0, url.find_first_of("?#"));
  const auto scheme = url.find("://");
  if (scheme != std::string_view::npos) url.remove_prefix(scheme + 3);
  const auto slash = url.rfind('/');
  const std::string_view name = slash == std::string_view::npos ? "" : url.substr(slash + 1);
  return is_plain_name(name) && !name.starts_with('.') ? std::string(name) : "file";
}

}  // namespace cairn::detail

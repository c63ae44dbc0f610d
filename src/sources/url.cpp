#include "sources/url.hpp"

#include <fmt/format.h>

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

}  // namespace cairn::detail

#include "output.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>

#include "base/throw.hpp"
#include "base/utf8.hpp"

namespace cairn::tool {

std::string human_bytes(std::uint64_t bytes) {
  constexpr std::array kUnits{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  if (bytes < 1024) return fmt::format("{} B", bytes);
  double value = static_cast<double>(bytes) / 1024;
  std::size_t unit = 0;
  // 1023.995 would be printed as 1024.00.
  while (value >= 1023.995 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  return fmt::format("{:.2f} {}", value, kUnits[unit]);
}

std::string counted(std::uint64_t n, const std::string& noun) {
  return fmt::format("{} {}{}", n, noun, n == 1 ? "" : "s");
}

namespace {

/// A longer cell stands out: the other rows are not padded to its width.
constexpr std::size_t kWidestColumn = 120;

/// Characters of a UTF-8 text.
std::size_t width_of(std::string_view text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  }));
}

/// Bytes of the UTF-8 character that starts at `at`; 0 where none does.
std::size_t character_bytes(std::string_view text, std::size_t at) {
  const auto first = static_cast<unsigned char>(text[at]);
  if (first < 0x80) return 1;
  const std::size_t bytes = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
  return detail::is_utf8(text.substr(at, bytes)) ? bytes : 0;
}

/// The control character that starts at `at`, if it is DEL or one from U+0080 to U+009F; else 0.
unsigned late_control(std::string_view text, std::size_t at) {
  const auto first = static_cast<unsigned char>(text[at]);
  if (first == 0x7f) return first;
  if (first != 0xc2 || at + 1 == text.size()) return 0;
  const auto second = static_cast<unsigned char>(text[at + 1]);
  return second >= 0x80 && second < 0xa0 ? second : 0;
}

}  // namespace

std::string Table::text(const std::string& indent) const {
  std::vector<std::size_t> widths;
  for (const auto& row : rows_) {
    widths.resize(std::max(widths.size(), row.size()), 0);
    for (std::size_t c = 0; c < row.size(); ++c) {
      widths[c] = std::max(widths[c], std::min(width_of(row[c]), kWidestColumn));
    }
  }
  std::string text;
  for (const auto& row : rows_) {
    text += indent;
    std::size_t gap = 0;  // before the next cell that is not empty
    for (std::size_t c = 0; c < row.size(); ++c) {
      if (!row[c].empty()) {
        text.append(gap, ' ');
        text += row[c];
        gap = 0;
      }
      gap += widths[c] - std::min(width_of(row[c]), widths[c]) + 2;
    }
    text += "\n";
  }
  return text;
}

bool write_out(const std::string& text) {
  return std::fwrite(text.data(), 1, text.size(), stdout) == text.size() &&
         std::fflush(stdout) == 0;
}

void print(const Comm& comm, const std::function<std::string()>& make) {
  agree(comm, "print", [&] {
    if (comm.is_root() && !write_out(visible(make()))) {
      detail::fail(Errc::io, "{}", kCannotPrint);
    }
  });
}

std::string visible(std::string_view text) {
  std::string shown;
  shown.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const auto byte = static_cast<unsigned char>(text[at]);
    const std::size_t bytes = character_bytes(text, at);
    if (const unsigned control = late_control(text, at)) {
      shown += fmt::format("\\x{:02x}", control);
    } else if ((byte < 0x20 && byte != '\n') || bytes == 0) {
      shown += fmt::format("\\x{:02x}", byte);
    } else {
      shown += text.substr(at, bytes);
    }
    at += std::max<std::size_t>(bytes, 1);
  }
  return shown;
}

std::function<void(std::uint64_t, std::uint64_t)> progress_bar() {
  if (::isatty(STDERR_FILENO) == 0) return {};
  return [shown = -1](std::uint64_t done, std::uint64_t total) mutable {
    constexpr int kWidth = 40;
    const int percent =
        total == 0
            ? 100
            : static_cast<int>(100. * static_cast<double>(done) / static_cast<double>(total));
    if (percent == shown) return;
    shown = percent;
    const auto full = static_cast<std::size_t>(percent * kWidth / 100);
    const std::string line = fmt::format("\r[{:<{}}] {:3}%{}", std::string(full, '='), kWidth,
                                         percent, percent == 100 ? "\n" : "");
    std::fwrite(line.data(), 1, line.size(), stderr);
    std::fflush(stderr);
  };
}

std::string to_text(const Json& json) {
  std::string text = json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
  // JSON lets these stand in a text, and the library escapes only those below a space.
  std::size_t at = 0;
  while (at < text.size() && late_control(text, at) == 0) ++at;
  if (at == text.size()) return text;
  std::string escaped = text.substr(0, at);
  while (at < text.size()) {
    const unsigned control = late_control(text, at);
    if (control != 0) {
      escaped += fmt::format("\\u{:04x}", control);
    } else {
      escaped += text[at];
    }
    at += control > 0x7f ? 2 : 1;
  }
  return escaped;
}

}  // namespace cairn::tool

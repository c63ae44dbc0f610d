#include "pipeline/legacy/render.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "pipeline/rules.hpp"

namespace cairn::detail::legacy {
namespace {

constexpr std::string_view kLetters =
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";

bool only(std::string_view text, std::string_view extra, bool letters = true) {
  return std::all_of(text.begin(), text.end(), [&](char c) {
    return extra.find(c) != std::string_view::npos ||
           (letters && kLetters.find(c) != std::string_view::npos);
  });
}

/// What some reader takes for a number, a date, a flag or null.
bool looks_typed(std::string_view text) {
  constexpr std::array<std::string_view, 9> kWords{"null", "Null", "NULL", "~", "y",
                                                   "Y",    "n",    "N",    "."};
  bool flag = false;
  if (parse_flag(text, flag) || std::find(kWords.begin(), kWords.end(), text) != kWords.end()) {
    return true;
  }
  if (text.starts_with(".inf") || text.starts_with(".nan") || text.starts_with(".Inf")) return true;
  // Any run id of hexadecimal digits, too: "12345678" and "58e25" would be numbers.
  return only(text.substr(0, 1), "0123456789+-.", false) &&
         only(text, "0123456789abcdefABCDEFxXoO_+-.:", false);
}

bool is_plain(std::string_view text, bool in_flow) {
  if (text.empty() || looks_typed(text)) return false;
  const bool begins = only(text.substr(0, 1), "/_.$") || text.starts_with("~/");
  const std::string_view allowed = in_flow ? "_./-+@%=~$" : "_./-+@%=~$,:{}()[]? ";
  return begins && only(text, allowed) && text.find(": ") == std::string_view::npos &&
         !text.ends_with(':') && !text.ends_with(' ');
}

std::string flow(const Json& json) {
  if (json.is_object()) return "{" + flow_entries(json) + "}";
  if (json.is_string()) return scalar(json.get<std::string>(), true);
  if (!json.is_array()) return json.dump();
  std::string text;
  for (const auto& item : json) text += (text.empty() ? "" : ", ") + flow(item);
  return "[" + text + "]";
}

}  // namespace

std::string scalar(std::string_view text, bool in_flow) {
  if (is_plain(text, in_flow)) return std::string(text);
  const bool control = std::any_of(text.begin(), text.end(), [](char c) {
    return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
  });
  if (control) return Json(text).dump();
  std::string quoted = "'";
  for (const char c : text) {
    if (c == '\'') quoted += '\'';
    quoted += c;
  }
  return quoted + "'";
}

std::string flow_entries(const Json& block) {
  std::string text;
  for (const auto& [key, value] : block.items()) {
    text += fmt::format("{}{}: {}", text.empty() ? "" : ", ", key, flow(value));
  }
  return text;
}

std::string comment_lines(const std::vector<std::string>& lines, std::size_t indent) {
  std::string text;
  for (const std::string& line : lines) {
    std::string clean = line;
    for (char& c : clean) {
      if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
    }
    text += fmt::format("{:{}}# {}\n", "", indent, clean);
  }
  return text;
}

std::string block_lines(const Json& block, const Plan& plan, const std::string& path,
                        std::size_t indent) {
  std::string text;
  for (const auto& [key, value] : block.items()) {
    const std::string inner = path.empty() ? key : path + "." + key;
    if (const auto why = plan.comments.find(inner); why != plan.comments.end()) {
      text += comment_lines(why->second, indent);
    }
    text += fmt::format("{:{}}{}:", "", indent, key);
    if (value.is_object() && !value.empty()) {
      text += "\n" + block_lines(value, plan, inner, indent + 2);
    } else if (value.is_array() && !value.empty() && value[0].is_object()) {
      text += "\n";
      for (const auto& item : value) text += fmt::format("{:{}}- {}\n", "", indent + 2, flow(item));
    } else {
      text += fmt::format(
          " {}\n", value.is_string() ? scalar(value.get<std::string>(), false) : flow(value));
    }
  }
  return text;
}

}  // namespace cairn::detail::legacy

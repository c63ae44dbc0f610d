#include "pipeline/legacy/text.hpp"

#include <algorithm>

#include "base/throw.hpp"

namespace cairn::detail::legacy {
namespace {

constexpr std::string_view kBlanks = " \t";
constexpr std::string_view kSpaces = " \t\r\n";

[[noreturn]] void give_up(std::string_view text, std::size_t at) {
  fail(Errc::usage, "line {} is written in a way that cannot be edited",
       std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(at), '\n') + 1);
}

bool is_one_of(std::string_view set, std::string_view text, std::size_t at) {
  return at < text.size() && set.find(text[at]) != std::string_view::npos;
}

std::size_t skip(std::string_view text, std::size_t at, std::string_view set) {
  return std::min(text.find_first_not_of(set, at), text.size());
}

std::size_t skip_quoted(std::string_view text, std::size_t at) {
  const char quote = text[at];
  for (std::size_t i = at + 1; i < text.size(); ++i) {
    if (quote == '"' && text[i] == '\\') {
      ++i;
    } else if (text[i] == quote) {
      if (quote == '"' || i + 1 >= text.size() || text[i + 1] != quote) return i + 1;
      ++i;
    }
  }
  give_up(text, at);
}

bool begins_comment(std::string_view text, std::size_t at) {
  return text[at] == '#' && (at == 0 || is_one_of(kSpaces, text, at - 1));
}

bool begins_quoted(std::string_view text, std::size_t at) {
  return is_one_of("\"'", text, at) && (at == 0 || is_one_of(" \t\r\n[{,:", text, at - 1));
}

std::size_t skip_flow(std::string_view text, std::size_t at) {
  int depth = 0;
  for (std::size_t i = at; i < text.size(); ++i) {
    if (begins_quoted(text, i)) {
      i = skip_quoted(text, i) - 1;
    } else if (begins_comment(text, i)) {
      i = line_end(text, i);
    } else if (is_one_of("[{", text, i)) {
      ++depth;
    } else if (is_one_of("]}", text, i) && --depth == 0) {
      return i + 1;
    }
  }
  give_up(text, at);
}

/// Anchors and tags in front of a node.
std::size_t skip_properties(std::string_view text, std::size_t at) {
  while (is_one_of("&!", text, at)) {
    at = std::min(text.find_first_of(kSpaces, at), text.size());
    at = skip(text, at, kBlanks);
  }
  return at;
}

/// Behind the ':' of the key at `at`.
std::size_t skip_key(std::string_view text, std::size_t at, bool in_flow) {
  at = skip_properties(text, at);
  if (is_one_of("\"'", text, at)) {
    at = skip(text, skip_quoted(text, at), kBlanks);
    if (!is_one_of(":", text, at)) give_up(text, at);
    return at + 1;
  }
  for (std::size_t i = at; i < text.size() && text[i] != '\n'; ++i) {
    const bool ends = i + 1 >= text.size() || is_one_of(kSpaces, text, i + 1) ||
                      (in_flow && is_one_of(",]}", text, i + 1));
    if (text[i] == ':' && ends) return i + 1;
  }
  give_up(text, at);
}

/// The end of plain text on its line: before a comment and the blanks around.
std::size_t plain_end(std::string_view text, std::size_t at, std::string_view closers) {
  std::size_t end = at;
  for (std::size_t i = at; i < line_end(text, at); ++i) {
    if (begins_comment(text, i) || is_one_of(closers, text, i)) break;
    if (!is_one_of(kBlanks, text, i)) end = i + 1;
  }
  return end;
}

enum class Lines { scalar, literal, nodes };

/// The end of what follows on the lines below `at` and belongs to a key in column `column`.
std::size_t end_of_lines(std::string_view text, std::size_t at, std::size_t column, Lines kind) {
  std::size_t end = at;
  bool list = false;  // a list may stand as far left as its key
  for (std::size_t line = next_line(text, at); line < text.size(); line = next_line(text, line)) {
    const std::size_t first = skip(text, line, kBlanks);
    if (first >= line_end(text, line)) continue;
    const bool comment = text[first] == '#' && kind != Lines::literal;
    if (comment && kind == Lines::nodes) continue;
    if (comment) break;
    const std::size_t indent = first - line;
    const bool item = text[first] == '-' && is_one_of(kSpaces, text, first + 1);
    if (end == at && kind == Lines::nodes) list = item && indent == column;
    if (indent < column || (indent == column && !(list && item))) break;
    end = kind == Lines::literal ? line_end(text, line)
                                 : std::max(plain_end(text, first, ""), first + 1);
  }
  return end;
}

}  // namespace

std::size_t line_begin(std::string_view text, std::size_t at) {
  const auto before = at == 0 ? std::string_view::npos : text.rfind('\n', at - 1);
  return before == std::string_view::npos ? 0 : before + 1;
}

std::size_t line_end(std::string_view text, std::size_t at) {
  std::size_t end = std::min(text.find('\n', at), text.size());
  if (end > at && text[end - 1] == '\r') --end;
  return end;
}

std::size_t next_line(std::string_view text, std::size_t at) {
  const auto end = text.find('\n', at);
  return end == std::string_view::npos ? text.size() : end + 1;
}

std::size_t entry_end(std::string_view text, std::size_t key_at, bool in_flow) {
  const std::size_t column = key_at - line_begin(text, key_at);
  const std::size_t after_key = skip_key(text, key_at, in_flow);
  std::size_t at = after_key;
  const std::string_view blanks = in_flow ? kSpaces : kBlanks;
  at = skip_properties(text, skip(text, at, blanks));
  at = skip(text, at, blanks);
  if (is_one_of("\"'", text, at)) return skip_quoted(text, at);
  if (is_one_of("[{", text, at)) return skip_flow(text, at);
  if (in_flow) {
    const std::size_t end = plain_end(text, at, ",]}");
    return end > at ? end : after_key;
  }
  if (at >= line_end(text, at) || begins_comment(text, at)) {
    return end_of_lines(text, after_key, column, Lines::nodes);
  }
  if (is_one_of("|>", text, at)) {
    const std::size_t header = plain_end(text, at, "");
    return std::max(header, end_of_lines(text, header, column, Lines::literal));
  }
  const std::size_t end = plain_end(text, at, "");
  if (text[at] == '*' || end < line_end(text, at)) return end;
  return end_of_lines(text, end, column, Lines::scalar);
}

std::vector<std::string> comments_of(std::string_view text, std::size_t begin, std::size_t end) {
  std::vector<std::string> comments;
  for (std::size_t i = begin; i < end; ++i) {
    if (begins_quoted(text, i)) {
      i = skip_quoted(text, i) - 1;
    } else if (begins_comment(text, i)) {
      comments.emplace_back(text.substr(i, line_end(text, i) - i));
      i = line_end(text, i);
    }
  }
  return comments;
}

namespace {

void remove_from_flow(std::string& text, std::size_t key_at) {
  const std::size_t end = entry_end(text, key_at, true);
  const std::size_t next = skip(text, end, kSpaces);
  if (is_one_of(",", text, next)) {
    text.erase(key_at, skip(text, next + 1, kSpaces) - key_at);
    return;
  }
  if (!is_one_of("}", text, next)) give_up(text, key_at);
  const std::size_t line = line_begin(text, key_at);
  if (skip(text, line, kBlanks) == key_at && skip(text, end, kBlanks) == line_end(text, end)) {
    // On a line of its own; the comma above may stay, but in JSON.
    const auto comma = text.find_last_not_of(kSpaces, line - 1);
    const bool above = comma != std::string::npos && text[comma] == ',';
    text.erase(line, next_line(text, end) - line);
    if (above) text.erase(comma, 1);
    return;
  }
  // The last entry goes with the comma before it.
  const auto before = text.find_last_not_of(kSpaces, key_at - 1);
  const bool comma = before != std::string::npos && text[before] == ',';
  if (!comma && !is_one_of("{", text, before)) give_up(text, key_at);
  const std::size_t begin = comma ? before : before + 1;
  text.erase(begin, end - begin);
}

}  // namespace

void remove_entry(std::string& text, std::size_t key_at, bool in_flow, const std::string& label) {
  if (in_flow) {
    remove_from_flow(text, key_at);
    return;
  }
  const std::size_t begin = line_begin(text, key_at);
  const std::size_t end = entry_end(text, key_at, false);
  const std::size_t rest = skip(text, end, kBlanks);
  const bool clean = rest >= line_end(text, end) || begins_comment(text, rest);
  if (skip(text, begin, kBlanks) != key_at || !clean) give_up(text, key_at);
  const std::string indent = text.substr(begin, key_at - begin);
  const std::string eol =
      text.substr(line_end(text, end), next_line(text, end) - line_end(text, end));
  const std::size_t after_key = skip_key(text, key_at, false);
  const std::size_t value =
      skip(text, skip_properties(text, skip(text, after_key, kBlanks)), kBlanks);
  const bool literal = is_one_of("|>", text, value);  // what looks like a comment in it is none
  std::string kept;
  for (const std::string& comment : comments_of(
           text, literal ? value : key_at, literal ? line_end(text, value) : line_end(text, end))) {
    kept += indent + (kept.empty() ? label : "") + comment + eol;
  }
  text.replace(begin, next_line(text, end) - begin, kept);
}

void replace_in_entry(std::string& text, std::size_t key_at, bool in_flow, const std::string& from,
                      const std::string& to) {
  std::size_t end = entry_end(text, key_at, in_flow);
  for (std::size_t i = skip_key(text, key_at, in_flow); i < end; ++i) {
    if (begins_comment(text, i)) {
      i = line_end(text, i);
    } else if (text.compare(i, from.size(), from) == 0) {
      text.replace(i, from.size(), to);
      i += to.size() - 1;
      end += to.size() - from.size();
    }
  }
}

}  // namespace cairn::detail::legacy

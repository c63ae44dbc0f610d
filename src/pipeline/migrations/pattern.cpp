#include "pipeline/migrations/pattern.hpp"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <set>

#include "base/throw.hpp"

namespace cairn::detail::migrations {
namespace {

bool is_word(std::string_view text) {
  return !text.empty() && std::isdigit(static_cast<unsigned char>(text[0])) == 0 &&
         std::all_of(text.begin(), text.end(), [](char c) {
           return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_';
         });
}

std::size_t digits_at(std::string_view text, std::size_t at) {
  std::size_t end = at;
  while (end < text.size() && text[end] >= '0' && text[end] <= '9') ++end;
  return end - at;
}

/// One expression, by recursive descent.
class Expression {
 public:
  Expression(std::string_view text, const std::map<std::string, std::int64_t>& values)
      : text_(text), values_(values) {}

  std::int64_t value() {
    const std::int64_t result = sum();
    if (at_ != text_.size()) refuse("ends too early");
    return result;
  }

 private:
  [[noreturn]] void refuse(std::string_view why) const {
    fail(Errc::usage, "the expression '{{{}}}' {}: whole numbers, words, + - * / // % and ( )",
         text_, why);
  }
  void skip() {
    while (at_ < text_.size() && text_[at_] == ' ') ++at_;
  }
  bool take(std::string_view token) {
    skip();
    if (!text_.substr(at_).starts_with(token)) return false;
    at_ += token.size();
    skip();
    return true;
  }
  /// Far from what 64 bits hold, so that no result ever passes them.
  std::int64_t bounded(std::int64_t value) const {
    constexpr std::int64_t kMost = std::int64_t{1} << 31;
    if (value < -kMost || value > kMost) {
      fail(Errc::mismatch, "the expression '{{{}}}' gives a number beyond 2^31", text_);
    }
    return value;
  }

  std::int64_t sum() {
    std::int64_t result = product();
    for (;;) {
      if (take("+")) {
        result = bounded(result + product());
      } else if (take("-")) {
        result = bounded(result - product());
      } else {
        return result;
      }
    }
  }
  std::int64_t product() {
    std::int64_t result = factor();
    for (;;) {
      if (take("*")) {
        result = bounded(result * factor());
      } else if (take("//")) {
        result = divided(result, /*exact=*/false);
      } else if (take("/")) {
        result = divided(result, /*exact=*/true);
      } else if (take("%")) {
        const std::int64_t by = divisor();
        result = ((result % by) + by) % by;
      } else {
        return result;
      }
    }
  }
  std::int64_t divisor() {
    const std::int64_t by = factor();
    if (by <= 0) fail(Errc::mismatch, "the expression '{{{}}}' divides by {}", text_, by);
    return by;
  }
  std::int64_t divided(std::int64_t value, bool exact) {
    const std::int64_t by = divisor();
    const std::int64_t rest = ((value % by) + by) % by;
    if (exact && rest != 0) {
      fail(Errc::mismatch, "in the expression '{{{}}}', {} / {} has a rest; // rounds down", text_,
           value, by);
    }
    return (value - rest) / by;
  }
  std::int64_t factor() {
    skip();
    if (++depth_ > 32) refuse("is nested too deeply");
    std::int64_t result = 0;
    if (take("(")) {
      result = sum();
      if (!take(")")) refuse("lacks a ')'");
    } else if (const std::size_t digits = digits_at(text_, at_); digits != 0) {
      if (digits > 9) refuse("has a number of more than 9 digits");
      std::from_chars(text_.data() + at_, text_.data() + at_ + digits, result);
      at_ += digits;
    } else {
      result = word();
    }
    skip();
    --depth_;
    return result;
  }
  std::int64_t word() {
    std::size_t end = at_;
    while (end < text_.size() && is_word(text_.substr(at_, end - at_ + 1))) ++end;
    if (end == at_) refuse("can't be understood");
    const std::string name(text_.substr(at_, end - at_));
    at_ = end;
    const auto known = values_.find(name);
    if (known == values_.end()) {
      fail(Errc::usage,
           "the expression '{{{}}}' has the word '{}', which neither the pattern nor "
           "'values' gives",
           text_, name);
    }
    return bounded(known->second);
  }

  std::string_view text_;
  const std::map<std::string, std::int64_t>& values_;
  std::size_t at_ = 0;
  int depth_ = 0;
};

}  // namespace

std::vector<NamePattern::Part> NamePattern::parts_of(std::string_view text) {
  std::vector<Part> parts;
  if (text.empty()) fail(Errc::usage, "a name is empty");
  for (std::size_t at = 0; at < text.size();) {
    if (text[at] == '*') {
      parts.push_back({Part::Kind::any, ""});
      ++at;
      continue;
    }
    if (text[at] == '{') {
      const std::size_t end = text.find('}', at);
      if (end == std::string_view::npos) fail(Errc::usage, "'{}' lacks a '}}'", text);
      parts.push_back({Part::Kind::number, std::string(text.substr(at + 1, end - at - 1))});
      at = end + 1;
      continue;
    }
    const std::size_t end = std::min(text.find_first_of("*{", at), text.size());
    parts.push_back({Part::Kind::text, std::string(text.substr(at, end - at))});
    at = end;
  }
  return parts;
}

NamePattern::NamePattern(std::string_view text) : parts_(parts_of(text)) {
  constexpr std::ptrdiff_t kMostTexts = 2;  // a third one would make matching slow
  const auto count = std::count_if(parts_.begin(), parts_.end(),
                                   [](const Part& part) { return part.kind == Part::Kind::any; });
  if (count > kMostTexts) fail(Errc::usage, "'{}' has more than two '*'", text);
  std::set<std::string> words;
  for (const Part& part : parts_) {
    if (part.kind != Part::Kind::number) continue;
    if (!is_word(part.text)) {
      fail(Errc::usage, "'{{{}}}' in '{}' is no word that a number could be called", part.text,
           text);
    }
    if (!words.insert(part.text).second) fail(Errc::usage, "'{}' has a word twice", text);
  }
}

bool NamePattern::match_from(std::size_t part, std::string_view name, std::size_t at, bool whole,
                             Match& match) const {
  if (part == parts_.size()) {
    if (at != name.size() && (whole || name[at] != '.')) return false;
    match.rest = name.substr(at);
    return true;
  }
  const Part& next = parts_[part];
  switch (next.kind) {
    case Part::Kind::text:
      return name.substr(at).starts_with(next.text) &&
             match_from(part + 1, name, at + next.text.size(), whole, match);
    case Part::Kind::number: {
      const std::size_t digits = digits_at(name, at);
      if (digits == 0 || digits > 9 || (digits > 1 && name[at] == '0')) return false;
      std::int64_t number = 0;
      std::from_chars(name.data() + at, name.data() + at + digits, number);
      if (!match_from(part + 1, name, at + digits, whole, match)) return false;
      match.numbers[next.text] = number;
      return true;
    }
    case Part::Kind::any:
      for (std::size_t end = at + 1; end <= name.size(); ++end) {
        if (!match_from(part + 1, name, end, whole, match)) continue;
        match.texts.emplace(match.texts.begin(), name.substr(at, end - at));
        return true;
      }
      return false;
  }
  return false;
}

std::optional<Match> NamePattern::match(std::string_view name) const {
  Match match;
  if (!match_from(0, name, 0, /*whole=*/false, match)) return std::nullopt;
  return match;
}

std::optional<Match> NamePattern::match_whole(std::string_view name) const {
  Match match;
  if (!match_from(0, name, 0, /*whole=*/true, match)) return std::nullopt;
  return match;
}

NameTemplate::NameTemplate(std::string_view text, const NamePattern& pattern,
                           const std::map<std::string, std::int64_t>& values)
    : parts_(NamePattern::parts_of(text)), values_(values) {
  using Kind = NamePattern::Part::Kind;
  std::map<std::string, std::int64_t> known = values;
  std::size_t texts = 0;
  std::set<std::string> words;
  for (const NamePattern::Part& part : pattern.parts_) {
    texts += part.kind == Kind::any ? 1 : 0;
    if (part.kind != Kind::number) continue;
    words.insert(part.text);
    known.emplace(part.text, 1);
  }
  std::size_t used = 0;
  std::set<std::string> used_words;
  for (const NamePattern::Part& part : parts_) {
    used += part.kind == Kind::any ? 1 : 0;
    if (part.kind != Kind::number) continue;
    used_words.insert(part.text);
    try {
      Expression(part.text, known).value();
    } catch (const Error& error) {
      // What the numbers of names decide is told when they are known.
      if (error.code() != Errc::mismatch) throw;
    }
  }
  if (used > texts) fail(Errc::usage, "'{}' has more '*' than what it is made from", text);
  invertible_ = used == texts && words == used_words;
}

std::string NameTemplate::fill(const Match& match) const {
  using Kind = NamePattern::Part::Kind;
  std::map<std::string, std::int64_t> values = values_;
  for (const auto& [word, number] : match.numbers) values[word] = number;
  std::string name;
  std::size_t next = 0;
  for (const NamePattern::Part& part : parts_) {
    if (part.kind == Kind::text) {
      name += part.text;
    } else if (part.kind == Kind::any) {
      name += match.texts.at(next++);
    } else {
      const std::int64_t value = Expression(part.text, values).value();
      if (value < 0) fail(Errc::mismatch, "the expression '{{{}}}' gives {}", part.text, value);
      name += std::to_string(value);
    }
  }
  return name;
}

}  // namespace cairn::detail::migrations

#include "formats/torch/repr.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/utf8.hpp"

namespace cairn::detail::torch {
namespace {

using pickle::Class;
using pickle::Graph;
using pickle::Kind;
using pickle::Ref;

constexpr std::size_t kMostBytes = 1000;
constexpr int kMostDepth = 8;
constexpr int kMostValues = 200;  // a few tuples that hold each other can make any number

/// The shortest digits that give the number again, as both write them, but for the exponents.
std::string real_repr(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  char buffer[64];
  const double size = std::abs(value);
  const bool plain = size == 0 || (size >= 1e-4 && size < 1e16);
  const auto format = plain ? std::chars_format::fixed : std::chars_format::scientific;
  const auto end = std::to_chars(buffer, buffer + sizeof(buffer), value, format).ptr;
  std::string text(buffer, end);
  if (plain && text.find('.') == std::string::npos) text += ".0";
  return text;
}

/// In quotes: double ones where it has single ones alone. What can't be printed is escaped.
std::string quoted(std::string_view raw, bool is_text) {
  const bool has_single = raw.find('\'') != std::string_view::npos;
  const char quote = has_single && raw.find('"') == std::string_view::npos ? '"' : '\'';
  std::string text(1, quote);
  for (std::size_t at = 0; at < raw.size() && text.size() <= kMostBytes;) {
    const std::size_t start = at;
    std::uint32_t point = static_cast<unsigned char>(raw[at]);
    if (is_text) {
      point = next_code_point(raw, at).value_or(point);
    } else {
      ++at;
    }
    if (point == '\n' || point == '\r' || point == '\t') {
      text += point == '\n' ? "\\n" : point == '\r' ? "\\r" : "\\t";
    } else if (point == '\\' || point == static_cast<unsigned char>(quote)) {
      text += '\\';
      text += static_cast<char>(point);
    } else if (point < ' ' || point == 0x7f || (point > 0x7f && (!is_text || point <= 0xa0))) {
      text += fmt::format("\\x{:02x}", point);
    } else {
      text += raw.substr(start, at - start);
    }
  }
  text += quote;
  return text;
}

/// A whole number of the imaginary part has no ".0".
std::string complex_repr(double real, double imaginary) {
  const auto part = [](double value) {
    std::string text = real_repr(value);
    if (text.ends_with(".0")) text.resize(text.size() - 2);
    return text;
  };
  if (real == 0 && !std::signbit(real)) return part(imaginary) + "j";
  const bool plus = !part(imaginary).starts_with('-');
  return fmt::format("({}{}{}j)", part(real), plus ? "+" : "", part(imaginary));
}

/// `left`: of the values that may be told.
std::string repr(const Graph& graph, Ref ref, int depth, int& left) {
  if (--left < 0) return "...";
  switch (graph.kind(ref)) {
    case Kind::none:
      return "None";
    case Kind::boolean:
      return graph.boolean(ref) ? "True" : "False";
    case Kind::integer:
    case Kind::big_integer:
      return graph.decimal(ref);
    case Kind::real:
      return real_repr(graph.real(ref));
    case Kind::complex: {
      const auto parts = graph.elements(ref);
      return complex_repr(graph.real(parts[0]), graph.real(parts[1]));
    }
    case Kind::text:
      return quoted(graph.text(ref), true);
    case Kind::bytes:
      return "b" + quoted(graph.text(ref), false);
    case Kind::global: {
      const std::string name = graph.global(ref).qualified();
      if (graph.class_of(ref) == Class::torch_dtype) return name;
      const std::string_view builtin = "builtins.";
      return fmt::format("<class '{}'>",
                         name.substr(name.starts_with(builtin) ? builtin.size() : 0));
    }
    case Kind::tuple: {
      const auto parts = graph.elements(ref);
      std::string text = "(";
      for (const Ref part : parts) {
        if (text.size() > kMostBytes || depth == kMostDepth || left <= 0) return "...";
        if (text.size() > 1) text += ", ";
        text += repr(graph, part, depth + 1, left);
      }
      if (parts.size() == 1) text += ',';
      return text + ")";
    }
    case Kind::frozenset: {  // of several, the order is Python's secret
      const auto parts = graph.elements(ref);
      if (parts.size() > 1 || depth == kMostDepth) return "...";
      return parts.empty()
                 ? "frozenset()"
                 : fmt::format("frozenset({{{}}})", repr(graph, parts[0], depth + 1, left));
    }
    default:
      return "...";
  }
}

}  // namespace

std::string repr_of(const Graph& graph, Ref ref) {
  int left = kMostValues;
  std::string text = repr(graph, ref, 0, left);
  return text.size() > kMostBytes ? "..." : text;
}

}  // namespace cairn::detail::torch

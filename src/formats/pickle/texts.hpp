#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace cairn::detail::pickle {

/// The texts of pickles. All functions are Local; `where` names the place in errors.

/// Appends a code point as UTF-8.
void append_utf8(std::string& text, std::uint32_t point);
/// The bytes of code points below 256 in UTF-8 (Latin-1), as NumPy's and Python's bytes travel in
/// old protocols. False where there is another code point.
bool latin1_of(std::string_view text, std::string& bytes);
/// The argument of UNICODE: Latin-1 with \uXXXX and \UXXXXXXXX. Errors: corrupt.
std::string text_of_escapes(std::string_view raw, const std::string& where);
/// The argument of STRING: a quoted Python 2 str with its escapes. Errors: corrupt.
std::string bytes_of_repr(std::string_view raw, const std::string& where);
/// The argument of FLOAT: what repr() writes. Errors: corrupt.
double real_of_text(std::string_view text, const std::string& where);

}  // namespace cairn::detail::pickle

#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace cairn::detail::legacy {

/// YAML as text: what the parser does not tell, so that a file can be edited and not rewritten.
/// Offsets are bytes. All of it is Local, and `usage` errors say that a text cannot be edited.

std::size_t line_begin(std::string_view text, std::size_t at);
/// Where the line's end-of-line begins.
std::size_t line_end(std::string_view text, std::size_t at);
/// Where the next line begins.
std::size_t next_line(std::string_view text, std::size_t at);

/// The end of the value of the entry whose key begins at `key_at`, without what follows on its
/// line.
std::size_t entry_end(std::string_view text, std::size_t key_at, bool in_flow);

/// The comments between two offsets, each from its '#' to the end of its line.
std::vector<std::string> comments_of(std::string_view text, std::size_t begin, std::size_t end);

/// Takes an entry out. Comments in it stay, on lines of their own; the first gets `label` in front.
void remove_entry(std::string& text, std::size_t key_at, bool in_flow, const std::string& label);

/// Replaces `from` by `to` in the value of an entry, but not in its comments.
void replace_in_entry(std::string& text, std::size_t key_at, bool in_flow, const std::string& from,
                      const std::string& to);

}  // namespace cairn::detail::legacy

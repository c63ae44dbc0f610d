#pragma once

#include <string>
#include <string_view>

namespace cairn::detail {

/// A text as it may be shown: of a URL, user, password and everything behind "?" are taken away,
/// because they may be secrets; where it is not sure what the "@" in a text ends, all is. Other
/// texts stay. Local.
std::string masked_url(std::string_view text);

/// The URL by which a file is known: without user, password, and, where it is signed, what belongs
/// to the signature, which is another one each time. May hold secrets: a token in a link is part of
/// the file's name. Local.
std::string url_without_signature(std::string_view url);

/// Percent-encoded but for letters, digits and "-._~", and for the characters of `also`. Local.
std::string percent_encoded(std::string_view text, std::string_view also = {});

/// What a file fetched from `path` (the last component of a URL's path or of a key) is called:
/// plain characters only, never empty, never hidden. Local.
std::string file_name_of(std::string_view path);

/// A URL in parts; all but the scheme and the host may be empty.
struct Url {
  std::string scheme;  ///< "http" or "https"
  std::string host;    ///< with the port, unless it is the scheme's own
  std::string path;    ///< as it stands, without what follows; "/" at least
  bool has_user = false;
  bool has_query = false;
};

/// Errors: usage (no http or https URL with a host). Local.
Url parse_url(const std::string& text);

/// The URL of a server, below which files are asked for: no user, password or query, which belong
/// to none of these requests. The path has no "/" at its end. Errors: usage. Local.
Url parse_endpoint(const std::string& text);

}  // namespace cairn::detail

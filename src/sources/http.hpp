#pragma once

#include <string>
#include <string_view>

#include "cairn/source.hpp"
#include "sources/request.hpp"

namespace cairn::detail {

/// What the names of indexes end in, which name the files of a model in shards.
inline constexpr std::string_view kIndexSuffix = ".index.json";

/// Refuses an index, for a source that would bring it without the shards. Local. Errors:
/// unsupported.
void require_whole(const std::string& name, const std::string& shown);

/// How the file of the source is asked for. Errors: usage, unsupported (an index). Local.
Remote remote_of(const HttpSource& source);

/// A SHA-256 that somebody gave, in lower case; empty stays so. Errors: usage. Local.
std::string expected_sha256(const std::string& given);

/// "Authorization: Bearer <the value of `variable`>", or nothing where it is not set. Errors: usage
/// (characters that no token has). Local.
std::vector<std::string> bearer_header(const std::string& variable);

/// `given`, else the file that the environment names for curl and OpenSSL; empty: the system's.
/// Local.
std::filesystem::path ca_file_of(const std::filesystem::path& given);

}  // namespace cairn::detail

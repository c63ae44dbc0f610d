#pragma once

#include <string>
#include <string_view>

#include "cairn/source.hpp"
#include "sources/request.hpp"

namespace cairn::detail {

/// How the object is asked for: the URL, and a signature for each request. Errors: usage, not_found
/// (a credentials file that the environment names), unsupported (an index). Local.
Remote remote_of(const S3Source& source);

/// "NoSuchKey: The specified key does not exist.", of the XML in which S3 refuses; empty where it
/// is none. Local.
std::string explain_s3(std::string_view body);

}  // namespace cairn::detail

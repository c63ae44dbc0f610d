#pragma once

#include <optional>
#include <string>

#include "cairn/source.hpp"
#include "sources/sigv4.hpp"

namespace cairn::detail {

struct AwsSettings {
  std::optional<AwsCredentials> credentials;  ///< nothing: requests are not signed
  std::string region;
};

/// Credentials: none if the source is anonymous; its profile's; else the environment's; else those
/// of $AWS_PROFILE or "default", if there are such. Region: the source's, the environment's, the
/// profile's, else us-east-1. Errors: usage (half a credential; a named profile that has none),
/// not_found (a file that the environment names, where credentials are looked for in files). Local.
AwsSettings aws_settings(const S3Source& source);

}  // namespace cairn::detail

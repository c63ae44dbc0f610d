#include "sources/aws_profile.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <system_error>

#include "base/text.hpp"
#include "base/throw.hpp"
#include "os/environment.hpp"

namespace cairn::detail {
namespace {

namespace fs = std::filesystem;

using Section = std::map<std::string, std::string>;

constexpr const char* kConfigFile = "AWS_CONFIG_FILE";
constexpr const char* kCredentialsFile = "AWS_SHARED_CREDENTIALS_FILE";

/// A file that an environment variable names, or that of this name in the home directory.
fs::path file_of(const char* name, const char* in_home) {
  if (const std::string named = environment(name); !named.empty()) return named;
  const std::string home = environment("HOME");
  return home.empty() ? fs::path() : fs::path(home) / ".aws" / in_home;
}

void check_named_file(const char* name) {
  const std::string named = environment(name);
  std::error_code error;
  if (named.empty() || fs::exists(named, error)) return;
  fail(Errc::not_found, "'{}' cannot be found; ${} names it", named, name);
}

/// One section of a file of "[section]" and "key = value" lines; empty where there is none.
Section read_section(const fs::path& path, const std::string& section) {
  std::ifstream in(path);
  Section found;
  bool inside = false;
  for (std::string line; std::getline(in, line);) {
    const bool nested = !line.empty() && (line.front() == ' ' || line.front() == '\t');
    line = std::string(trimmed(line));
    if (line.empty() || line.front() == '#' || line.front() == ';') continue;
    if (line.front() == '[') {
      inside = trimmed(line.substr(1, line.find(']') - 1)) == section;
    } else if (const auto equals = line.find('=');
               inside && !nested && equals != std::string::npos) {
      const std::string_view text = line;
      found[std::string(trimmed(text.substr(0, equals)))] = trimmed(text.substr(equals + 1));
    }
  }
  return found;
}

std::optional<AwsCredentials> credentials_of(const Section& section, const std::string& where) {
  const auto value = [&](const char* key) {
    const auto at = section.find(key);
    return at == section.end() ? std::string() : at->second;
  };
  const AwsCredentials credentials{value("aws_access_key_id"), value("aws_secret_access_key"),
                                   value("aws_session_token")};
  if (credentials.key_id.empty() != credentials.secret.empty()) {
    fail(Errc::usage, "{} has {}; both are needed, or none", where,
         credentials.secret.empty() ? "an access key and no secret" : "a secret and no access key");
  }
  // A line break would end the header that it is sent in.
  for (const std::string& text : {credentials.key_id, credentials.session_token}) {
    if (std::any_of(text.begin(), text.end(),
                    [](unsigned char c) { return c <= ' ' || c > '~'; })) {
      fail(Errc::usage, "{} has blanks or control characters in a credential", where);
    }
  }
  if (credentials.key_id.empty()) return {};
  return credentials;
}

}  // namespace

AwsSettings aws_settings(const S3Source& source) {
  const bool named = !source.profile.empty();
  const std::string of_environment = environment("AWS_PROFILE");
  const std::string profile = named                    ? source.profile
                              : of_environment.empty() ? "default"
                                                       : of_environment;
  const fs::path config = file_of(kConfigFile, "config");
  const Section settings =
      read_section(config, profile == "default" ? profile : "profile " + profile);

  AwsSettings aws;
  aws.region = source.region;
  for (const char* name : {"AWS_REGION", "AWS_DEFAULT_REGION"}) {
    if (aws.region.empty()) aws.region = environment(name);
  }
  if (const auto region = settings.find("region"); aws.region.empty() && region != settings.end()) {
    aws.region = region->second;
  }
  if (aws.region.empty()) aws.region = "us-east-1";
  if (source.anonymous) return aws;

  if (!named) {
    aws.credentials =
        credentials_of({{"aws_access_key_id", environment("AWS_ACCESS_KEY_ID")},
                        {"aws_secret_access_key", environment("AWS_SECRET_ACCESS_KEY")},
                        {"aws_session_token", environment("AWS_SESSION_TOKEN")}},
                       "the environment");
    if (aws.credentials) return aws;
  }
  check_named_file(kConfigFile);
  check_named_file(kCredentialsFile);
  const fs::path shared = file_of(kCredentialsFile, "credentials");
  const std::string where = fmt::format("the profile '{}'", profile);
  aws.credentials = credentials_of(read_section(shared, profile), where);
  if (!aws.credentials) aws.credentials = credentials_of(settings, where);
  if (!aws.credentials && (named || !of_environment.empty())) {
    fail(Errc::usage, "the profile '{}' has no credentials in '{}' and '{}'", profile,
         shared.string(), config.string());
  }
  return aws;
}

}  // namespace cairn::detail

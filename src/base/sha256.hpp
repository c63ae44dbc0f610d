#pragma once

#include <openssl/evp.h>

#include <array>
#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace cairn::detail {

using Sha256Digest = std::array<std::byte, 32>;

/// SHA-256, fed piece by piece. Errors: internal (OpenSSL refuses).
class Sha256 {
 public:
  Sha256();
  void update(std::span<const std::byte> bytes);
  /// Once.
  Sha256Digest finish();

 private:
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
};

Sha256Digest sha256_of(std::string_view text);
Sha256Digest hmac_sha256(std::span<const std::byte> key, std::string_view message);

/// Two lower-case hexadecimal digits for each byte.
std::string to_hex(std::span<const std::byte> bytes);

/// A SHA-256 that somebody wrote, in lower case; nothing where it is not 64 hexadecimal digits.
std::optional<std::string> parse_sha256(std::string_view text);

}  // namespace cairn::detail

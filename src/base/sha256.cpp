#include "base/sha256.hpp"

#include <fmt/format.h>
#include <openssl/hmac.h>

#include "base/text.hpp"
#include "base/throw.hpp"

namespace cairn::detail {
namespace {

void check(bool ok) {
  if (!ok) fail(Errc::internal, "OpenSSL cannot compute SHA-256; see its configuration");
}

}  // namespace

Sha256::Sha256() : context_(EVP_MD_CTX_new(), EVP_MD_CTX_free) {
  check(context_ != nullptr && EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1);
}

void Sha256::update(std::span<const std::byte> bytes) {
  check(EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()) == 1);
}

Sha256Digest Sha256::finish() {
  Sha256Digest digest{};
  check(EVP_DigestFinal_ex(context_.get(), reinterpret_cast<unsigned char*>(digest.data()),
                           nullptr) == 1);
  return digest;
}

Sha256Digest sha256_of(std::string_view text) {
  Sha256 hash;
  hash.update(std::as_bytes(std::span(text)));
  return hash.finish();
}

Sha256Digest hmac_sha256(std::span<const std::byte> key, std::string_view message) {
  Sha256Digest digest{};
  check(HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()),
             reinterpret_cast<const unsigned char*>(message.data()), message.size(),
             reinterpret_cast<unsigned char*>(digest.data()), nullptr) != nullptr);
  return digest;
}

std::string to_hex(std::span<const std::byte> bytes) {
  std::string text;
  for (const std::byte byte : bytes) text += fmt::format("{:02x}", static_cast<unsigned>(byte));
  return text;
}

std::optional<std::string> parse_sha256(std::string_view text) {
  std::string lower = lower_case(text);
  const bool digits = lower.find_first_not_of("0123456789abcdef") == std::string::npos;
  if (!digits || lower.size() != 2 * sizeof(Sha256Digest)) return {};
  return lower;
}

}  // namespace cairn::detail

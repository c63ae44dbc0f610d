#include "base/digest.hpp"

#include <fmt/format.h>
#include <xxhash.h>

#include <bit>

namespace cairn::detail {

static_assert(std::endian::native == std::endian::little, "containers are little-endian");

std::uint64_t digest_of(std::span<const std::byte> bytes) {
  return XXH3_64bits(bytes.data(), bytes.size());
}

std::uint64_t digest_of(std::string_view text) { return XXH3_64bits(text.data(), text.size()); }

struct Digester::State {
  XXH3_state_t xxh;
};

Digester::Digester() : state_(std::make_unique<State>()) { XXH3_64bits_reset(&state_->xxh); }
Digester::~Digester() = default;
Digester::Digester(Digester&&) noexcept = default;
Digester& Digester::operator=(Digester&&) noexcept = default;

void Digester::update(std::span<const std::byte> bytes) {
  XXH3_64bits_update(&state_->xxh, bytes.data(), bytes.size());
}

void Digester::update(std::uint64_t value) {
  XXH3_64bits_update(&state_->xxh, &value, sizeof(value));
}

void Digester::update(std::string_view text) {
  update(static_cast<std::uint64_t>(text.size()));
  XXH3_64bits_update(&state_->xxh, text.data(), text.size());
}

std::uint64_t Digester::value() const { return XXH3_64bits_digest(&state_->xxh); }

std::string to_hex(std::uint64_t digest) { return fmt::format("{:016x}", digest); }

}  // namespace cairn::detail

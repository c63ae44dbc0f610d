#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "cairn/export.hpp"

namespace cairn::detail {

/// XXH3-64 with seed 0 (https://github.com/Cyan4973/xxHash, doc/xxhash_spec.md): the digest of
/// format 1.
std::uint64_t digest_of(std::span<const std::byte> bytes);
CAIRN_EXPORT std::uint64_t digest_of(std::string_view text);

/// The same, fed piece by piece.
class CAIRN_EXPORT Digester {
 public:
  Digester();
  ~Digester();
  Digester(Digester&&) noexcept;
  Digester& operator=(Digester&&) noexcept;

  void update(std::span<const std::byte> bytes);
  /// Feeds an integer as 8 little-endian bytes.
  void update(std::uint64_t value);
  /// Feeds the length, then the text: two texts never run together.
  void update(std::string_view text);
  std::uint64_t value() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// 16 hexadecimal digits.
std::string to_hex(std::uint64_t digest);

}  // namespace cairn::detail

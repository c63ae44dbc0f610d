#pragma once

#include <cstddef>
#include <memory>
#include <span>

namespace cairn::detail {

/// Undoes zlib's deflate. Not for use from two threads.
class Inflater {
 public:
  Inflater();
  ~Inflater();
  Inflater(Inflater&&) noexcept;
  Inflater& operator=(Inflater&&) noexcept;

  /// Fills `out` exactly. Errors: corrupt where `in` is damaged or gives more or less.
  void inflate(std::span<const std::byte> in, std::span<std::byte> out);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Undoes the shuffle of elements of `item` bytes: `in` has the first bytes of all of them, then
/// the second ones, and so on. Equal sizes, multiples of `item`.
void unshuffle(std::span<const std::byte> in, std::size_t item, std::span<std::byte> out);

}  // namespace cairn::detail

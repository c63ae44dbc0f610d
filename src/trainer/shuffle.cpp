// A Feistel network permutes the numbers of an even number of bits; numbers that fall outside the
// wanted range are sent through it again until they fall inside, which keeps it a permutation. The
// network has at most four times as many numbers as are wanted, so few rounds are needed.
#include "trainer/shuffle.hpp"

#include <bit>

namespace cairn::detail {
namespace {

constexpr unsigned kRounds = 8;

/// Spreads every bit of the input over the output (the finaliser of SplitMix64).
std::uint64_t mix(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

}  // namespace

Shuffle::Shuffle(std::uint64_t size, std::uint64_t seed, std::uint64_t epoch)
    : size_(size),
      key_(mix(mix(seed + 0x9e3779b97f4a7c15ULL) + epoch)),
      half_bits_((static_cast<unsigned>(std::bit_width(size - 1)) + 1) / 2) {}

std::uint64_t Shuffle::operator()(std::uint64_t index) const {
  if (half_bits_ == 0) return index;  // a single number
  const std::uint64_t mask = (std::uint64_t{1} << half_bits_) - 1;
  do {
    std::uint64_t left = index >> half_bits_;
    std::uint64_t right = index & mask;
    for (unsigned round = 0; round < kRounds; ++round) {
      const std::uint64_t next = left ^ (mix(right + mix(key_ + round)) & mask);
      left = right;
      right = next;
    }
    index = left << half_bits_ | right;
  } while (index >= size_);
  return index;
}

}  // namespace cairn::detail

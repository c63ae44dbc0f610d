#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace train_lm {

/// The bytes to learn.
class Text {
 public:
  /// Local. Errors: not_found, io, usage (shorter than one sample of `context` bytes and its
  /// target).
  static Text read(const std::filesystem::path& path, std::uint64_t context);

  std::uint64_t size() const { return bytes_.size(); }

  /// Samples `first` to `first + count` of the batch of `step`: `count * context` bytes each. A
  /// pure function of its arguments, so that any number of ranks sees the same batch. targets are
  /// the inputs one byte later.
  struct Samples {
    std::vector<std::int64_t> inputs;
    std::vector<std::int64_t> targets;
  };
  Samples samples(std::uint64_t seed, std::uint64_t step, std::uint64_t first,
                  std::uint64_t count) const;

 private:
  std::string bytes_;
  std::uint64_t context_ = 0;
};

/// A well-mixed hash of three numbers; the one source of derived seeds.
std::uint64_t mix(std::uint64_t a, std::uint64_t b, std::uint64_t c);

}  // namespace train_lm

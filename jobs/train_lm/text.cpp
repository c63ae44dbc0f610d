#include "text.hpp"

#include <fmt/core.h>
#include <xxhash.h>

#include <array>
#include <fstream>
#include <iterator>

#include "cairn/error.hpp"

namespace train_lm {

std::uint64_t mix(std::uint64_t a, std::uint64_t b, std::uint64_t c) {
  const std::array<std::uint64_t, 3> numbers{a, b, c};
  return XXH3_64bits(numbers.data(), sizeof numbers);
}

Text Text::read(const std::filesystem::path& path, std::uint64_t context) {
  if (!std::filesystem::is_regular_file(path)) {
    throw cairn::Error(cairn::Errc::not_found,
                       fmt::format("{}: not a file; --data takes a text", path.string()));
  }
  Text text;
  text.context_ = context;
  std::ifstream file(path, std::ios::binary);
  text.bytes_.assign(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  if (!file.is_open() || file.bad()) {
    throw cairn::Error(cairn::Errc::io, fmt::format("{}: cannot be read", path.string()));
  }
  if (text.bytes_.size() <= context) {
    throw cairn::Error(
        cairn::Errc::usage,
        fmt::format("{}: {} bytes are too few for --context {}; at least {} are needed",
                    path.string(), text.bytes_.size(), context, context + 1));
  }
  return text;
}

Text::Samples Text::samples(std::uint64_t seed, std::uint64_t step, std::uint64_t first,
                            std::uint64_t count) const {
  Samples samples;
  samples.inputs.reserve(count * context_);
  samples.targets.reserve(count * context_);
  for (std::uint64_t index = first; index < first + count; ++index) {
    const std::uint64_t start = mix(seed, step, index) % (bytes_.size() - context_);
    for (std::uint64_t i = start; i < start + context_; ++i) {
      samples.inputs.push_back(static_cast<unsigned char>(bytes_[i]));
      samples.targets.push_back(static_cast<unsigned char>(bytes_[i + 1]));
    }
  }
  return samples;
}

}  // namespace train_lm

#include "base/inflate.hpp"

#include <isa-l/igzip_lib.h>

#include <limits>

#include "base/throw.hpp"

namespace cairn::detail {

struct Inflater::State {
  inflate_state stream;
};

Inflater::Inflater() : state_(std::make_unique<State>()) {}
Inflater::~Inflater() = default;
Inflater::Inflater(Inflater&&) noexcept = default;
Inflater& Inflater::operator=(Inflater&&) noexcept = default;

void Inflater::inflate(std::span<const std::byte> in, std::span<std::byte> out) {
  constexpr std::size_t kMost = std::numeric_limits<std::uint32_t>::max();
  if (in.size() > kMost || out.size() > kMost) {
    fail(Errc::corrupt, "compressed data of more than 4 GiB in one piece");
  }
  inflate_state& stream = state_->stream;
  isal_inflate_init(&stream);
  stream.crc_flag = ISAL_ZLIB;
  // The library takes a pointer to bytes that it does not change.
  stream.next_in = reinterpret_cast<std::uint8_t*>(const_cast<std::byte*>(in.data()));
  stream.avail_in = static_cast<std::uint32_t>(in.size());
  stream.next_out = reinterpret_cast<std::uint8_t*>(out.data());
  stream.avail_out = static_cast<std::uint32_t>(out.size());
  const int code = isal_inflate_stateless(&stream);
  if (code != ISAL_DECOMP_OK || stream.avail_out != 0) {
    fail(Errc::corrupt, "compressed data is damaged (code {}, {} bytes are missing)", code,
         stream.avail_out);
  }
}

void unshuffle(std::span<const std::byte> in, std::size_t item, std::span<std::byte> out) {
  const std::size_t elements = in.size() / item;
  for (std::size_t b = 0; b < item; ++b) {
    const std::byte* from = in.data() + b * elements;
    for (std::size_t i = 0; i < elements; ++i) out[i * item + b] = from[i];
  }
}

}  // namespace cairn::detail

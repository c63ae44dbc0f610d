#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/throw.hpp"

namespace cairn::detail {

/// Appends little-endian values to a byte string: what travels between ranks and lies in `/index`.
class ByteWriter {
 public:
  void reserve(std::size_t bytes) { bytes_.reserve(bytes); }
  template <class T>
  requires std::is_trivially_copyable_v<T>
  void put(const T& value) { put_raw(std::as_bytes(std::span(&value, 1))); }
  void put_text(std::string_view text) {
    put(static_cast<std::uint64_t>(text.size()));
    put_raw(std::as_bytes(std::span(text)));
  }
  void put_raw(std::span<const std::byte> raw) {
    bytes_.insert(bytes_.end(), raw.begin(), raw.end());
  }
  std::size_t size() const { return bytes_.size(); }
  std::vector<std::byte> take() { return std::move(bytes_); }

 private:
  std::vector<std::byte> bytes_;
};

/// Reads what ByteWriter wrote, never past the end. Errors: corrupt, with `what` as the subject.
class ByteReader {
 public:
  ByteReader(std::span<const std::byte> bytes, std::string_view what)
      : bytes_(bytes), what_(what) {}

  template <class T>
  requires std::is_trivially_copyable_v<T> T get() {
    T value;
    std::memcpy(&value, get_raw(sizeof(T)).data(), sizeof(T));
    return value;
  }
  std::string get_text() {
    const auto raw = get_raw(get<std::uint64_t>());
    return {reinterpret_cast<const char*>(raw.data()), raw.size()};
  }
  std::span<const std::byte> get_raw(std::uint64_t count) {
    if (count > left()) truncated();
    const auto raw = bytes_.subspan(at_, count);
    at_ += count;
    return raw;
  }
  std::size_t left() const { return bytes_.size() - at_; }

 private:
  [[noreturn]] void truncated() const { fail(Errc::corrupt, "{} ends early", what_); }

  std::span<const std::byte> bytes_;
  std::string_view what_;
  std::size_t at_ = 0;
};

}  // namespace cairn::detail

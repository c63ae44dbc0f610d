#pragma once

#include <algorithm>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <iterator>
#include <string>
#include <utility>

#include "cairn/export.hpp"

namespace cairn {

/// One number per dimension: the extents of a tensor (outermost first; row-major order, the last
/// dimension fastest), the corner of a box, or strides. Up to four dimensions need no memory of
/// their own: a checkpoint's table holds several shapes per tensor. All members are Local.
class Shape {
 public:
  using value_type = std::uint64_t;
  using iterator = std::uint64_t*;
  using const_iterator = const std::uint64_t*;

  Shape() = default;
  explicit Shape(std::size_t dims, std::uint64_t value = 0) { assign(dims, value); }
  Shape(std::initializer_list<std::uint64_t> values) : Shape(values.begin(), values.end()) {}
  template <std::forward_iterator It>
  Shape(It first, It last) {
    grow(static_cast<std::size_t>(std::distance(first, last)));
    for (std::uint64_t* to = begin(); first != last; ++first) {
      *to++ = static_cast<std::uint64_t>(*first);
    }
  }
  Shape(const Shape& other) : Shape(other.begin(), other.end()) {}
  Shape(Shape&& other) noexcept { take(other); }
  Shape& operator=(const Shape& other) {
    if (this != &other) *this = Shape(other);
    return *this;
  }
  Shape& operator=(Shape&& other) noexcept {
    if (this != &other) {
      release();
      take(other);
    }
    return *this;
  }
  ~Shape() { release(); }

  std::size_t size() const noexcept { return size_; }
  bool empty() const noexcept { return size_ == 0; }
  std::uint64_t* data() noexcept { return room_ == kInline ? inline_ : heap_; }
  const std::uint64_t* data() const noexcept { return room_ == kInline ? inline_ : heap_; }
  iterator begin() noexcept { return data(); }
  iterator end() noexcept { return data() + size_; }
  const_iterator begin() const noexcept { return data(); }
  const_iterator end() const noexcept { return data() + size_; }
  std::uint64_t& operator[](std::size_t d) noexcept { return data()[d]; }
  std::uint64_t operator[](std::size_t d) const noexcept { return data()[d]; }
  std::uint64_t& front() noexcept { return data()[0]; }
  std::uint64_t front() const noexcept { return data()[0]; }
  std::uint64_t& back() noexcept { return data()[size_ - 1]; }
  std::uint64_t back() const noexcept { return data()[size_ - 1]; }

  void assign(std::size_t dims, std::uint64_t value) {
    grow(dims);
    std::fill(begin(), end(), value);
  }
  void push_back(std::uint64_t value) {
    grow(size_ + std::size_t{1});
    data()[size_ - 1] = value;
  }
  void pop_back() noexcept { --size_; }

  friend bool operator==(const Shape& a, const Shape& b) noexcept {
    return std::equal(a.begin(), a.end(), b.begin(), b.end());
  }
  friend std::strong_ordering operator<=>(const Shape& a, const Shape& b) noexcept {
    return std::lexicographical_compare_three_way(a.begin(), a.end(), b.begin(), b.end());
  }

 private:
  static constexpr std::uint32_t kInline = 4;

  /// Makes the size `dims` and keeps the values that were there.
  void grow(std::size_t dims) {
    if (dims > room_) {
      const auto room = static_cast<std::uint32_t>(std::max<std::size_t>(dims, 2 * room_));
      auto* more = new std::uint64_t[room];
      std::copy(begin(), end(), more);
      release();
      heap_ = more;
      room_ = room;
    }
    size_ = static_cast<std::uint32_t>(dims);
  }
  void take(Shape& other) noexcept {
    size_ = std::exchange(other.size_, 0);
    room_ = std::exchange(other.room_, kInline);
    if (room_ == kInline) {
      std::copy(other.inline_, other.inline_ + size_, inline_);
    } else {
      heap_ = other.heap_;
    }
  }
  void release() noexcept {
    if (room_ != kInline) delete[] heap_;
    room_ = kInline;
  }

  std::uint32_t size_ = 0;
  std::uint32_t room_ = kInline;  // kInline: the values are in inline_
  union {
    std::uint64_t inline_[kInline];
    std::uint64_t* heap_;
  };
};

/// Number of elements. Errors: unsupported when the product passes 2^58. Local.
CAIRN_EXPORT std::uint64_t element_count(const Shape& shape);
/// "[768, 3072]". Local.
CAIRN_EXPORT std::string to_string(const Shape& shape);

}  // namespace cairn

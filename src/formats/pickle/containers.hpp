#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <memory_resource>
#include <utility>
#include <vector>

namespace cairn::detail::pickle {

/// A value's position in its graph.
using Ref = std::uint32_t;
inline constexpr Ref kNoRef = ~Ref{0};

/// Small pieces of memory come from larger ones and are taken back with the pool, not before;
/// others come from the heap and go back there.
class SmallPool : public std::pmr::memory_resource {
 public:
  static constexpr std::size_t kSmallBytes = 64;

 private:
  void* do_allocate(std::size_t bytes, std::size_t alignment) override {
    return bytes <= kSmallBytes ? pool_.allocate(bytes, alignment)
                                : std::pmr::new_delete_resource()->allocate(bytes, alignment);
  }
  void do_deallocate(void* memory, std::size_t bytes, std::size_t alignment) override {
    if (bytes <= kSmallBytes) return;
    std::pmr::new_delete_resource()->deallocate(memory, bytes, alignment);
  }
  bool do_is_equal(const std::pmr::memory_resource& other) const noexcept override {
    return this == &other;
  }

  std::pmr::monotonic_buffer_resource pool_;
};

using Refs = std::pmr::vector<Ref>;

/// What the lists, sets and dicts of a graph hold, by number. Most have a few elements, and there
/// may be millions of them. All members are Local.
class Containers {
 public:
  Containers() = default;
  Containers(Containers&&) = default;
  Containers& operator=(Containers&& other) noexcept {
    all_ = std::move(other.all_);  // first: what was there lies in the pool
    pool_ = std::move(other.pool_);
    return *this;
  }
  ~Containers() = default;

  /// A new, empty one.
  std::uint32_t add() {
    all_.emplace_back(pool_.get());
    return static_cast<std::uint32_t>(all_.size() - 1);
  }
  Refs& operator[](std::uint32_t number) { return all_[number]; }
  const Refs& operator[](std::uint32_t number) const { return all_[number]; }

 private:
  std::unique_ptr<SmallPool> pool_ = std::make_unique<SmallPool>();
  std::vector<Refs> all_;
};

}  // namespace cairn::detail::pickle

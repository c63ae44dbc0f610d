#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "cairn/context.hpp"
#include "cairn/error.hpp"

namespace cairn::detail {

/// What the stages of a load took. All members are Local.
class Trace {
 public:
  /// Runs `work` and notes how it went. Throws what it throws.
  template <class F>
  auto stage(const std::string& name, F&& work) {
    stages_.push_back({name, 0, 0, "failed"});
    const Clock clock{stages_, stages_.size() - 1, std::chrono::steady_clock::now()};
    try {
      if constexpr (std::is_void_v<decltype(work())>) {
        std::forward<F>(work)();
        stages_[clock.at].result = "completed";
      } else {
        auto result = std::forward<F>(work)();
        stages_[clock.at].result = "completed";
        return result;
      }
    } catch (const std::exception& error) {
      stages_[clock.at].result = std::string("failed: ") + error.what();
      throw;
    }
  }

  /// Bytes that the last stage moved here.
  void set_bytes(std::uint64_t bytes) { stages_.back().bytes = bytes; }
  const std::vector<StageTrace>& stages() const { return stages_; }

 private:
  struct Clock {
    std::vector<StageTrace>& stages;
    std::size_t at;
    std::chrono::steady_clock::time_point start;
    ~Clock() {
      stages[at].seconds =
          std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    }
  };
  std::vector<StageTrace> stages_;
};

}  // namespace cairn::detail

#include "digests.hpp"

#include <time.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <span>

#include "base/crc64.hpp"
#include "base/digest.hpp"
#include "plan/statistics.hpp"

namespace cairn::bench {
namespace {

constexpr std::size_t kWindowBytes = 256 << 10;
constexpr int kWindows = 1024;  // of a turn
constexpr int kTurns = 9;

/// Another thread's time does not count, so that a busy machine matters little.
double processor_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

}  // namespace

std::vector<LookSpeed> measure_looks() {
  std::vector<float> values(kWindowBytes / sizeof(float));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 1013) - 500;
  const auto window = std::as_bytes(std::span(values));
  std::uint64_t crc = 0;
  detail::Digester xxh3;
  detail::StatisticsTaker statistics(DType::f32);
  const std::vector<std::pair<std::string, std::function<void()>>> looks{
      {"CRC-64 (tensors)", [&] { crc = detail::crc64_update(crc, window); }},
      {"XXH3-64 (everything else)", [&] { xxh3.update(window); }},
      {"statistics of f32", [&] { statistics.update(window); }}};
  std::vector<std::vector<double>> speeds(looks.size());
  for (int turn = 0; turn <= kTurns; ++turn) {
    for (std::size_t l = 0; l < looks.size(); ++l) {
      const double start = processor_seconds();
      for (int i = 0; i < kWindows; ++i) looks[l].second();
      const double seconds = processor_seconds() - start;
      if (turn != 0) speeds[l].push_back(kWindows * static_cast<double>(kWindowBytes) / seconds);
    }
  }
  // The results are wanted, so that the compiler leaves nothing out.
  volatile std::uint64_t wanted = crc ^ xxh3.value() ^ statistics.value().nan;
  static_cast<void>(wanted);
  std::vector<LookSpeed> result;
  for (std::size_t l = 0; l < looks.size(); ++l) {
    std::sort(speeds[l].begin(), speeds[l].end());
    result.push_back(
        {looks[l].first, speeds[l][speeds[l].size() / 2], speeds[l].front(), speeds[l].back()});
  }
  return result;
}

}  // namespace cairn::bench

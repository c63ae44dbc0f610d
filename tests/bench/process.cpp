#include "process.hpp"

#include <fstream>
#include <string>

namespace cairn::bench {
namespace {

std::uint64_t field(const char* file, const std::string& name) {
  std::ifstream in(file);
  std::string word;
  std::uint64_t value = 0;
  while (in >> word) {
    if (word == name && in >> value) return value;
  }
  return 0;
}

}  // namespace

std::uint64_t start_memory_peak() {
  std::ofstream("/proc/self/clear_refs") << 5;  // proc(5): resets VmHWM
  return field("/proc/self/status", "VmRSS:") << 10;
}

std::uint64_t memory_peak() { return field("/proc/self/status", "VmHWM:") << 10; }

std::uint64_t bytes_read() { return field("/proc/self/io", "rchar:"); }

}  // namespace cairn::bench

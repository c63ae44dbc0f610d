#pragma once

#include <random>
#include <string>
#include <string_view>

namespace cairn::fuzz {

/// Breaks bytes at one to four places; some of what it puts in comes from `other`.
inline void mutate(std::string& bytes, std::mt19937_64& random, std::string_view other = {}) {
  constexpr std::string_view kOpcodes(
      ")]}(.0R\x81"
      "bQtseau\x85\x86\x93\x94");
  constexpr std::string_view kJson("{}[],:\"0-e\\");
  const auto below = [&](std::size_t n) { return n == 0 ? 0 : random() % n; };
  for (std::size_t changes = 1 + below(4); changes > 0; --changes) {
    const std::size_t at = below(bytes.size());
    switch (below(8)) {
      case 0:
        if (!bytes.empty()) bytes[at] = static_cast<char>(random());
        break;
      case 1:
        if (!bytes.empty()) bytes[at] = static_cast<char>(bytes[at] ^ 1 << below(8));
        break;
      case 2:
        bytes.erase(at, below(16));
        break;
      case 3:
        bytes.insert(at, bytes.substr(below(bytes.size()), below(64)));
        break;
      case 4:
        bytes.insert(at, 1, kOpcodes[below(kOpcodes.size())]);
        break;
      case 5:
        bytes.insert(at, 1, kJson[below(kJson.size())]);
        break;
      case 6:
        bytes.replace(at, below(16), other.substr(below(other.size()), below(64)));
        break;
      default:
        bytes.replace(at, below(16), bytes.substr(below(bytes.size()), below(16)));
    }
  }
}

}  // namespace cairn::fuzz

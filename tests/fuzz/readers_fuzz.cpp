// libFuzzer's entry (CONTRIBUTING.md says how to run it).
#include "fuzz/reader_target.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  cairn::fuzz::read_input({data, size});
  return 0;
}

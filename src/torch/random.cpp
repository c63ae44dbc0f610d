#include "torch/random.hpp"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <cstring>
#include <mutex>

#include "base/throw.hpp"

namespace cairn::detail {
namespace {

void set_state(at::Generator generator, const std::vector<std::byte>& state) {
  at::Tensor tensor = at::empty({static_cast<std::int64_t>(state.size())}, at::kByte);
  std::memcpy(tensor.data_ptr(), state.data(), state.size());
  const std::lock_guard lock(generator.mutex());
  try {
    generator.set_state(tensor);
  } catch (const c10::Error& error) {
    fail(Errc::corrupt, "the random state in the checkpoint is not one of this LibTorch ({})",
         error.what_without_backtrace());
  }
}

}  // namespace

std::vector<std::byte> random_state() {
  at::Generator generator = at::detail::getDefaultCPUGenerator();
  const std::lock_guard lock(generator.mutex());
  const at::Tensor state = generator.get_state();
  const auto* first = static_cast<const std::byte*>(state.data_ptr());
  return {first, first + state.nbytes()};
}

void set_random_state(const std::vector<std::byte>& state) {
  set_state(at::detail::getDefaultCPUGenerator(), state);
}

void set_seed(std::uint64_t seed) {
  at::Generator generator = at::detail::getDefaultCPUGenerator();
  const std::lock_guard lock(generator.mutex());
  generator.set_current_seed(seed);
}

std::uint64_t initial_seed() { return at::detail::getDefaultCPUGenerator().current_seed(); }

void check_random_state(const std::vector<std::byte>& state) {
  set_state(at::detail::createCPUGenerator(), state);
}

}  // namespace cairn::detail

#include "plan/part_digest.hpp"

#include <algorithm>

#include "plan/region.hpp"

namespace cairn::detail {

PartDigester::PartDigester(const TensorEntry& tensor, const Extent& extent) {
  const std::uint64_t item = item_bytes(tensor.dtype);
  const std::uint64_t bytes = extent.box.elements() * item;
  std::uint64_t start = 0;  // of the first byte, in the tensor
  std::uint64_t end = 0;    // behind the last
  if (bytes == 0) return;
  if (extent.flat) {
    start = extent.box.start[0] * item;
    end = start + bytes;
  } else {
    const Shape strides = row_major_strides(tensor.shape, item);
    end = item;
    for (std::size_t d = 0; d < strides.size(); ++d) {
      start += extent.box.start[d] * strides[d];
      end += (extent.box.start[d] + extent.box.count[d] - 1) * strides[d];
    }
  }
  run_ = bytes;
  if (end - start != bytes) add_steps(extent.box, tensor.shape, item);
  left_ = run_;
  state_ = start == 0 ? ~std::uint64_t{0} : 0;
  tail_ = element_count(tensor.shape) * item - end;
}

void PartDigester::add_steps(const Box& box, const Shape& shape, std::uint64_t item) {
  const Shape strides = row_major_strides(shape, item);
  std::size_t inner = shape.size();  // dimensions from here on are whole
  while (inner > 0 && box.count[inner - 1] == shape[inner - 1]) --inner;
  --inner;  // one partial dimension still belongs to the run
  run_ = box.count[inner] * strides[inner];
  std::uint64_t covered = run_;  // from the first byte to behind the last, of the inner dimensions
  for (std::size_t d = inner; d-- > 0;) {
    if (box.count[d] != 1) {
      steps_.insert(steps_.begin(), {box.count[d], 0, Crc64Skip(strides[d] - covered)});
    }
    covered += (box.count[d] - 1) * strides[d];
  }
}

void PartDigester::update(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    if (left_ == 0) next_run();
    const std::size_t count = std::min<std::uint64_t>(left_, bytes.size());
    state_ = crc64_update(state_, bytes.first(count));
    bytes = bytes.subspan(count);
    left_ -= count;
  }
}

void PartDigester::next_run() {
  for (std::size_t s = steps_.size(); s-- > 0;) {
    Step& step = steps_[s];
    if (++step.index < step.count) {
      state_ = step.skip(state_);
      break;
    }
    step.index = 0;
  }
  left_ = run_;
}

std::uint64_t part_digest(const TensorEntry& tensor, const Extent& extent,
                          std::span<const std::byte> bytes) {
  PartDigester digester(tensor, extent);
  digester.update(bytes);
  return digester.value();
}

}  // namespace cairn::detail

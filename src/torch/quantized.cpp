#include "torch/quantized.hpp"

#include <ATen/ops/empty.h>

#include <string_view>
#include <vector>

#include "torch/tensor_memory.hpp"

namespace cairn::detail {
namespace {

Shape sizes_of(const Json& record) {
  const auto sizes = record.at("sizes").get<std::vector<std::uint64_t>>();
  return {sizes.begin(), sizes.end()};
}

constexpr std::string_view kTensorAffine = "per_tensor_affine";
constexpr std::string_view kChannelAffine = "per_channel_affine";
/// Zero points are floating-point numbers too.
constexpr std::string_view kChannelFloat = "per_channel_affine_float_qparams";

std::string_view dtype_name(at::ScalarType type) {
  switch (type) {
    case at::kQInt8:
      return "qint8";
    case at::kQUInt8:
      return "quint8";
    case at::kQInt32:
      return "qint32";
    case at::kQUInt4x2:
      return "quint4x2";
    default:
      return "quint2x4";
  }
}

Json numbers_of(const at::Tensor& tensor) {
  const at::Tensor doubles = tensor.to(at::kCPU, at::kDouble).contiguous();
  Json values = Json::array();
  for (std::int64_t i = 0; i < doubles.numel(); ++i) {
    values.push_back(number_to_json(doubles.data_ptr<double>()[i]));
  }
  return values;
}

Json integers_of(const at::Tensor& tensor) {
  const at::Tensor integers = tensor.to(at::kCPU, at::kLong).contiguous();
  const auto* first = integers.data_ptr<std::int64_t>();
  return std::vector<std::int64_t>(first, first + integers.numel());
}

at::Tensor doubles_from(const Json& values) {
  at::Tensor tensor = at::empty({static_cast<std::int64_t>(values.size())}, at::kDouble);
  for (std::size_t i = 0; i < values.size(); ++i) {
    tensor.data_ptr<double>()[i] = number_from_json(values[i]);
  }
  return tensor;
}

at::Tensor integers_from(const Json& values) {
  at::Tensor tensor = at::empty({static_cast<std::int64_t>(values.size())}, at::kLong);
  for (std::size_t i = 0; i < values.size(); ++i) {
    tensor.data_ptr<std::int64_t>()[i] = values[i].get<std::int64_t>();
  }
  return tensor;
}

}  // namespace

Json quantizer_record(const std::string& name, const at::Tensor& tensor) {
  Json record{{"dtype", dtype_name(tensor.scalar_type())}};
  if (is_packed(tensor)) record["sizes"] = shape_of(tensor);
  switch (tensor.qscheme()) {
    case at::kPerTensorAffine:
      record["scheme"] = kTensorAffine;
      record["scale"] = number_to_json(tensor.q_scale());
      record["zero_point"] = tensor.q_zero_point();
      return record;
    case at::kPerChannelAffine:
      record["scheme"] = kChannelAffine;
      record["zero_points"] = integers_of(tensor.q_per_channel_zero_points());
      break;
    case at::kPerChannelAffineFloatQParams:
      record["scheme"] = kChannelFloat;
      record["zero_points"] = numbers_of(tensor.q_per_channel_zero_points());
      break;
    default:
      fail(Errc::unsupported, "tensor '{}' is quantised by {}; cairn knows the affine schemes",
           name, at::toString(tensor.qscheme()));
  }
  record["scales"] = numbers_of(tensor.q_per_channel_scales());
  record["axis"] = tensor.q_per_channel_axis();
  return record;
}

at::QuantizerPtr quantizer_from_record(const std::string& name, const at::Tensor& tensor,
                                       const Json& record) {
  const auto dtype = record.at("dtype").get<std::string>();
  if (dtype != dtype_name(tensor.scalar_type())) {
    fail(Errc::mismatch, "tensor '{}' is {} in the checkpoint but {} in memory", name, dtype,
         dtype_name(tensor.scalar_type()));
  }
  if (is_packed(tensor) && sizes_of(record) != shape_of(tensor)) {
    fail(Errc::mismatch, "tensor '{}' has sizes {} in the checkpoint but {} in memory", name,
         to_string(sizes_of(record)), to_string(shape_of(tensor)));
  }
  const auto scheme = record.at("scheme").get<std::string>();
  if (scheme == kTensorAffine) {
    return at::make_per_tensor_affine_quantizer(number_from_json(record.at("scale")),
                                                record.at("zero_point").get<std::int64_t>(),
                                                tensor.scalar_type());
  }
  if (scheme != kChannelAffine && scheme != kChannelFloat) {
    fail(Errc::unsupported,
         "tensor '{}' is quantised by '{}', which this version does not know; use a "
         "newer cairn",
         name, scheme);
  }
  const auto axis = record.at("axis").get<std::int64_t>();
  const at::Tensor scales = doubles_from(record.at("scales"));
  const bool as_float = scheme == kChannelFloat;
  const at::Tensor zero_points =
      as_float ? doubles_from(record.at("zero_points")) : integers_from(record.at("zero_points"));
  if (axis < 0 || axis >= tensor.dim() || scales.numel() != tensor.size(axis) ||
      zero_points.numel() != scales.numel()) {
    fail(Errc::mismatch,
         "tensor '{}' has {} scales along dimension {} in the checkpoint, which does "
         "not fit sizes {}",
         name, scales.numel(), axis, to_string(shape_of(tensor)));
  }
  return at::make_per_channel_affine_quantizer(scales, zero_points, axis, tensor.scalar_type());
}

}  // namespace cairn::detail

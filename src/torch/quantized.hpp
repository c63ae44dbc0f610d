#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/quantized/Quantizer.h>

#include <string>

#include "torch/documents.hpp"

namespace cairn::detail {

/// What the integers of a quantised tensor mean: dtype, scheme, scales and zero points, and for
/// types smaller than a byte the sizes. Errors: unsupported (another scheme than the affine ones).
Json quantizer_record(const std::string& name, const at::Tensor& tensor);

/// The quantizer of `record` for `tensor`. Throws Json::exception where the record is not as it
/// must be. Errors: mismatch (other dtype, sizes or number of channels), unsupported (another
/// scheme).
at::QuantizerPtr quantizer_from_record(const std::string& name, const at::Tensor& tensor,
                                       const Json& record);

}  // namespace cairn::detail

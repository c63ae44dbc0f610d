#pragma once

#include <string>
#include <vector>

#include "cairn/comm.hpp"
#include "cairn/tensor_view.hpp"

namespace train_lm {

/// XXH3-128, hexadecimal, over names, dtypes, shapes and values of the global tensors in the order
/// of their names: the same for any number of ranks and any placement. Every rank gives its pieces
/// of the same tensors. The answer is on rank 0; other ranks get "". Collective.
std::string digest_of(const cairn::Comm& comm, std::vector<cairn::TensorView> pieces);

}  // namespace train_lm

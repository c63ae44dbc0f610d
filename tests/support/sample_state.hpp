#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "cairn/checkpoint.hpp"

namespace cairn::test {

/// One rank's piece of a sample tensor with its memory. The bytes are a function of the tensor, the
/// version and the global element index, whoever holds the element.
struct Piece {
  std::string name;
  DType dtype = DType::f32;
  Placement placement;
  std::vector<std::byte> bytes;
};

/// How the sample's tensors are cut over the ranks.
enum class Cut { replicated, rows, columns, grid, flat, uneven, one_rank };

inline constexpr std::array kAllCuts{Cut::replicated, Cut::rows,   Cut::columns, Cut::grid,
                                     Cut::flat,       Cut::uneven, Cut::one_rank};
std::string_view to_string(Cut cut);
/// Throws Error(usage).
Cut cut_from_string(std::string_view name);

/// A state with every dtype and shapes from 0-d to 3-d, cut in one way. `counting.<dtype>` hold 0,
/// 1, 2,
/// ... (bool: 0, 1, 0, 1 ...; complex: i - i j) in every version; all others change with the
/// version.
std::vector<Piece> sample_pieces(Cut cut, int parts, int index, std::uint64_t version = 1);
/// Views of the pieces, a document "context" and a blob "rng" that differs in size between ranks.
StateView sample_state(const std::vector<Piece>& pieces, int rank, std::uint64_t step);
/// Loads the checkpoint into memory of this rank's own; the names of the pieces that came out
/// otherwise than `wanted`. Collective.
std::vector<std::string> wrong_pieces(const Comm& comm, const std::filesystem::path& path,
                                      const std::vector<Piece>& wanted,
                                      const LoadOptions& options = {});

}  // namespace cairn::test

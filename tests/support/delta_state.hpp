#pragma once

#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "cairn/checkpoint.hpp"
#include "support/mpi_test.hpp"
#include "support/sample_state.hpp"

namespace cairn::test {

/// SaveOptions with delta, not durable.
SaveOptions delta(EngineKind engine = EngineKind::direct);

/// The sample, in which some small tensors are those of `version` and all others of version 1;
/// `model/scalar` is of `rare`.
std::vector<Piece> pieces_of(Cut cut, std::uint64_t version, std::uint64_t rare = 1,
                             const Comm& comm = world());
/// Collective on `comm`, as the saver.
void save(Saver& saver, const std::filesystem::path& path, const std::vector<Piece>& pieces,
          std::uint64_t step = 1, const Comm& comm = world());
/// Whether the checkpoint is undamaged and loads as these pieces. Collective.
bool holds(const std::filesystem::path& path, const std::vector<Piece>& wanted,
           const LoadOptions& options = {});

/// The file that a tensor lies in.
std::string home_of(const Manifest& manifest, const std::string& tensor);
/// The file of a step.
std::string name_of(std::uint64_t step);
/// The files of the directory once rank 0 is as far as the others. Collective.
std::set<std::string> files_in(const std::filesystem::path& dir);

/// Runs `f` on rank 0, and goes on when it has. Collective.
template <class F>
void on_root(F&& f) {
  if (world().is_root()) f();
  world().all_equal(0);
}

}  // namespace cairn::test

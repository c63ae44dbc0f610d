#pragma once

#include <cstdint>
#include <filesystem>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "cairn/manifest.hpp"
#include "formats/dcp/metadata.hpp"
#include "formats/dcp/parts.hpp"
#include "formats/pickle/graph.hpp"
#include "formats/table_bytes.hpp"
#include "formats/torch/storages.hpp"
#include "formats/torch/tree.hpp"
#include "formats/torch/walk.hpp"

namespace cairn::detail::dcp {

/// The values of a distributed checkpoint that are no tensors: each is a file of torch.save's,
/// mostly within a data file, and nothing in it is executed. Large ones, and all that follow where
/// they are many, stay names, and so do those that are not of torch.save, are transformed, or hold
/// what cairn cannot read. Tensors in them join the others. All members are Local.
class Values {
 public:
  /// Lifetime: that of all arguments.
  Values(Manifest& manifest, DataFiles& files, TableBytes& table_bytes)
      : manifest_(manifest), files_(files), table_bytes_(table_bytes) {}

  /// Errors: corrupt (also no such data file), unsafe (also a pickle that would execute something),
  /// io.
  void add(const ValueMetadata& value);
  /// A file beside the data files, whose values lie at the root. One that cairn cannot read is left
  /// out, with a warning. Errors: the same.
  void add_file(const std::filesystem::path& path);
  /// Whether what is stored for two values is the same, byte for byte. Errors: corrupt, io.
  bool are_alike(const ValueMetadata& a, const ValueMetadata& b);
  /// Where members lie whose checksums the files do not tell, of values with tensors.
  const std::vector<Checksum>& unchecked() const { return unchecked_; }
  void warn(std::string warning) { warnings_.insert(std::move(warning)); }
  /// Puts the documents into the manifest, when it has all of its tensors. Errors: corrupt.
  void finish();

 private:
  const DataFiles::Open& open(const ValueMetadata& value);
  bool read(const ValueMetadata& value);
  std::vector<TensorEntry> take(const pickle::Graph& graph, const torch::Storages& storages,
                                std::uint32_t file, const std::vector<PathKey>& path);
  void remember(const pickle::Graph& graph, const std::vector<PathKey>& path);
  void remember(const pickle::Graph& graph, pickle::Ref ref, const std::vector<PathKey>& path);

  Manifest& manifest_;
  DataFiles& files_;
  TableBytes& table_bytes_;
  std::uint64_t read_bytes_ = 0;
  std::size_t remembered_ = 0;
  std::uint64_t remembered_bytes_ = 0;
  torch::WalkBudget budget_;
  torch::Tree tree_;
  std::string objects_;
  std::string opaque_;
  std::string arrays_;
  std::string containers_;
  std::vector<std::string> named_;
  std::set<std::string> warnings_;
  std::vector<Checksum> unchecked_;
};

}  // namespace cairn::detail::dcp

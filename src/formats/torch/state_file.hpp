#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cairn/manifest.hpp"
#include "formats/pickle/graph.hpp"
#include "formats/torch/storages.hpp"
#include "formats/torch/tensor.hpp"

namespace cairn::detail::torch {

/// One of the files of a checkpoint that is a directory, with its pickled object. What is missing in
/// it is corrupt, and errors name the file. All members are Local.
class StateFile {
 public:
  /// Also adds the file and its checksums to `manifest`. Errors name it by `name`, or where that is
  /// empty by the last part of its path.
  StateFile(const std::filesystem::path& path, Manifest& manifest, std::string name = {});
  StateFile(const StateFile&) = delete;
  StateFile& operator=(const StateFile&) = delete;

  const pickle::Graph& graph() const { return graph_; }
  const Storages& storages() const { return storages_; }
  std::uint32_t number() const { return number_; }  ///< in the manifest
  pickle::Ref root() const { return graph_.root(); }
  /// The value of a key; kNoRef where there is none, or where `dict` is none.
  pickle::Ref find(pickle::Ref dict, std::string_view key) const;
  pickle::Ref get(pickle::Ref dict, std::string_view key) const;
  /// A tensor, and where it starts in the file.
  struct Found {
    Tensor tensor;
    std::uint64_t offset = 0;
  };
  Found tensor(pickle::Ref ref, std::string_view name) const;
  std::int64_t integer(pickle::Ref ref, std::string_view name) const;
  /// Keys that are texts, and their values.
  std::vector<std::pair<std::string, pickle::Ref>> entries(pickle::Ref dict) const;

  [[noreturn]] void corrupt(std::string_view why) const;

 private:
  std::string name_;
  std::uint32_t number_;
  pickle::Graph graph_;
  Storages storages_;
};

}  // namespace cairn::detail::torch

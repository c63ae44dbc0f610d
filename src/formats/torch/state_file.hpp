#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cairn/manifest.hpp"
#include "formats/pickle/graph.hpp"
#include "formats/table_bytes.hpp"
#include "formats/torch/storages.hpp"
#include "formats/torch/tensor.hpp"

namespace cairn::detail::torch {

/// One of the files of a checkpoint that is a directory, with its pickled object. What is missing
/// in it is corrupt, and errors name the file. All members are Local.
class StateFile {
 public:
  /// Also adds the file and its checksums to `manifest`, and the file to `table_bytes`. Errors name
  /// it by `name`, or where that is empty by the last part of its path.
  StateFile(const std::filesystem::path& path, Manifest& manifest, TableBytes& table_bytes,
            std::string name = {});
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
  /// Calls f(key, value) for the keys that are texts; for none where `dict` is none.
  template <class F>
  void for_each(pickle::Ref dict, F&& f) const {
    if (dict == pickle::kNoRef) return;
    const auto pairs = graph_.pairs(dict);
    for (std::size_t i = 0; i < pairs.size(); i += 2) {
      if (graph_.kind(pairs[i]) == pickle::Kind::text) {
        f(std::string(graph_.text(pairs[i])), pairs[i + 1]);
      }
    }
  }

  [[noreturn]] void corrupt(std::string_view why) const;

 private:
  std::string name_;
  std::uint32_t number_;
  pickle::Graph graph_;
  Storages storages_;
};

}  // namespace cairn::detail::torch

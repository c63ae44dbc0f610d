#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include "cairn/manifest.hpp"
#include "formats/table_bytes.hpp"
#include "formats/torch/state_file.hpp"

namespace cairn::detail::deepspeed {

// A text as JSON, once more in two documents that grow, and written.
inline constexpr std::uint64_t kTimesTold = 6;

/// A flat run of elements in one file.
struct Run {
  std::uint32_t file = 0;
  std::uint64_t offset = 0;
  std::uint64_t elements = 0;
  DType dtype = DType::f32;
};
/// What a run takes in memory, with the lists that it is put into on the way to a tensor.
inline constexpr std::uint64_t kRunBytes = 3 * sizeof(Run);

/// A value for a whole run: as JSON, or where it lies; nothing where the run has none.
using Once = std::variant<std::monostate, std::string, Run>;

/// What one rank's optimizer file holds: by what it is ("fp32", "exp_avg", ...), one run for each
/// group of parameters, or (stage 3) for each sub-group.
struct Partition {
  std::int64_t stage = 0;
  std::int64_t ranks = 0;
  std::map<std::string, std::vector<Run>> runs;
  /// What the optimizer keeps once for each run, such as its step.
  std::map<std::string, std::vector<Once>> once;
  std::string param_groups;  ///< JSON; empty where there are none
};

/// A parameter as the model's files name it.
struct Parameter {
  std::string name;
  Shape shape;
};

// Below, `table_bytes` counts runs and tensors. All functions are Local. Errors: corrupt, unsafe.

Partition read_partition(const torch::StateFile& file, TableBytes& table_bytes);
/// Puts the parameters together from the ranks' partitions, stages 1 and 2: by group, each group's
/// ranks one behind the other.
void add_groups(const std::vector<Partition>& ranks,
                const std::vector<std::vector<Parameter>>& groups, Manifest& manifest,
                TableBytes& table_bytes);
/// The same for stage 3: each parameter is divided among all ranks, and lies at the same place in
/// each rank's groups, one behind the other, which they fill.
void add_divided(const std::vector<Partition>& ranks,
                 const std::vector<std::vector<Parameter>>& groups, Manifest& manifest,
                 TableBytes& table_bytes);
/// The parameters in each run of stage 3: the model's `groups` where these fill the runs, else by
/// what fills them, which hold whole parameters; or all as one.
std::vector<std::vector<Parameter>> divided_groups(const std::vector<Partition>& ranks,
                                                   std::vector<std::vector<Parameter>> groups);

/// The parts of a divided tensor, at `first` of each rank's runs. Adds what is called
/// `role`/`name`.
void add_divided_tensor(const std::vector<std::vector<Run>>& ranks, std::uint64_t first,
                        const std::string& role, const Parameter& parameter, Manifest& manifest,
                        TableBytes& table_bytes);
TensorEntry entry_of(const std::string& role, const std::string& name, DType dtype,
                     const Shape& shape);

}  // namespace cairn::detail::deepspeed

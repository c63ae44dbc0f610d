#include "formats/deepspeed/partitions.hpp"

#include <algorithm>
#include <array>
#include <iterator>
#include <span>
#include <string_view>
#include <utility>

#include "base/throw.hpp"
#include "formats/torch/facts.hpp"
#include "formats/torch/values.hpp"

namespace cairn::detail::deepspeed {
namespace {

using pickle::Kind;
using pickle::kNoRef;
using pickle::Ref;

constexpr const char* kWeights = "fp32";

Run run_of(const torch::StateFile& file, Ref ref, const std::string& name) {
  const torch::StateFile::Found found = file.tensor(ref, name);
  if (found.tensor.shape.size() != 1 || !found.tensor.contiguous) {
    file.corrupt(fmt::format("'{}' is no flat run of elements", name));
  }
  return {file.number(), found.offset, found.tensor.shape[0], found.tensor.dtype};
}

/// ZeroStageEnum, by its names: Python 3.11 pickled them, other releases the number. The optimizer
/// of bf16 without ZeRO's says no stage, and keeps its state as stage 1 does.
std::int64_t stage_of(const torch::StateFile& file, Ref state) {
  constexpr std::array<std::string_view, 4> kStages{"disabled", "optimizer_states", "gradients",
                                                    "weights"};
  const auto& graph = file.graph();
  const Ref stage = file.find(state, "zero_stage");
  if (stage == kNoRef) return 1;
  const bool is_attribute =
      graph.kind(stage) == Kind::object && graph.class_of(stage) == pickle::Class::get_attribute;
  if (is_attribute) {
    const auto args = graph.elements(graph.object(stage).args);
    for (std::size_t i = 0; args.size() == 2 && i < kStages.size(); ++i) {
      if (graph.is_text(args[1], kStages[i])) return static_cast<std::int64_t>(i);
    }
  }
  const std::int64_t number = file.integer(stage, "zero_stage");
  if (number < 0 || number > 3) file.corrupt(fmt::format("it has a 'zero_stage' of {}", number));
  return number;
}

/// What tensors are that are no state of an optimizer.
constexpr std::array<std::string_view, 4> kOthers{kWeights, "module", "frozen", "buffer"};

/// The state of a run of parameters: {exp_avg, exp_avg_sq, step}. What is as long as the run goes
/// with it, all else counts once for all of it.
void read_state(const torch::StateFile& file, std::int64_t number, Ref state, Partition& partition,
                TableBytes& table_bytes) {
  const auto& graph = file.graph();
  const std::size_t count = partition.runs.at(kWeights).size();
  if (number < 0 || number >= static_cast<std::int64_t>(count)) {
    file.corrupt("its optimizer has the state of more groups than there are");
  }
  const auto once = [&](const std::string& slot) -> Once& {
    std::vector<Once>& runs = partition.once[slot];
    if (runs.empty()) table_bytes.add_bytes(sizeof(Once) * count);
    runs.resize(count);
    return runs[static_cast<std::size_t>(number)];
  };
  file.for_each(state, [&](const std::string& slot, Ref ref) {
    if (std::find(kOthers.begin(), kOthers.end(), slot) != kOthers.end()) {
      file.corrupt(fmt::format("its optimizer has a state called '{}', as other things are", slot));
    }
    table_bytes.add_bytes(2 * slot.size() + kRunBytes);
    if (!torch::is_tensor(graph, ref)) {
      if (const auto value = torch::scalar_of(graph, ref)) {
        std::string text = value->at("value").dump();
        table_bytes.add_bytes(kTimesTold * text.size());
        once(slot) = std::move(text);
      }
    } else if (const auto found = file.tensor(ref, slot); found.tensor.shape.size() == 1) {
      auto& runs = partition.runs[slot];
      if (runs.empty()) table_bytes.add_bytes(kRunBytes * count);
      runs.resize(count);
      runs[static_cast<std::size_t>(number)] = run_of(file, ref, slot);
    } else if (found.tensor.shape.empty()) {
      once(slot) = Run{file.number(), found.offset, 1, found.tensor.dtype};
    } else {
      file.corrupt(fmt::format("'{}' is no flat run of elements", slot));
    }
  });
}

/// A torch.optim optimizer whose parameters are the runs, {state: {0: {exp_avg}}}, or (elastic) the
/// states alone, as a list.
void read_slots(const torch::StateFile& file, Ref optimizer, Partition& partition,
                TableBytes& table_bytes) {
  if (optimizer == kNoRef) return;
  const auto& graph = file.graph();
  std::int64_t number = 0;
  if (graph.kind(optimizer) == Kind::list) {
    for (const Ref state : graph.elements(optimizer)) {
      read_state(file, number++, state, partition, table_bytes);
    }
    return;
  }
  if (const Ref groups = file.find(optimizer, "param_groups"); groups != kNoRef) {
    partition.param_groups = torch::plain_json(graph, groups)
                                 .dump(-1, ' ', false, torch::Json::error_handler_t::replace);
  }
  const Ref state = file.find(optimizer, "state");
  const auto pairs = state == kNoRef ? std::span<const Ref>() : graph.pairs(state);
  for (std::size_t i = 0; i < pairs.size(); i += 2) {
    number = graph.kind(pairs[i]) == Kind::integer ? graph.integer(pairs[i]) : -1;
    read_state(file, number, pairs[i + 1], partition, table_bytes);
  }
}

/// Runs that lie one behind the other.
struct Chain {
  explicit Chain(std::vector<Run> all) : runs(std::move(all)) {
    std::uint64_t end = 0;
    for (const Run& run : runs) ends.push_back(end += run.elements);
  }
  std::vector<Run> runs;
  std::vector<std::uint64_t> ends;  ///< of each, in elements from the first one's start
};

/// Appends the elements [first, first + count) of a chain.
void add_extents(const Chain& chain, std::uint64_t first, std::uint64_t count,
                 std::uint64_t position, TensorEntry& entry) {
  const auto end = std::upper_bound(chain.ends.begin(), chain.ends.end(), first);
  const auto at = static_cast<std::size_t>(end - chain.ends.begin());
  if (at > 0) first -= chain.ends[at - 1];
  for (const Run& run : std::span(chain.runs).subspan(at)) {
    const std::uint64_t here = std::min(count, run.elements - first);
    if (here == 0) break;
    Extent extent;
    extent.file = run.file;
    extent.offset = run.offset + first * item_bytes(run.dtype);
    extent.flat = true;
    extent.box = {{position}, {here}};
    entry.extents.push_back(std::move(extent));
    position += here;
    count -= here;
    first = 0;
  }
  if (count != 0)
    fail(Errc::corrupt, "'{}' has {} elements less than it should", entry.name, count);
}

void finish(TensorEntry entry, Manifest& manifest, TableBytes& table_bytes) {
  if (entry.extents.size() == 1) {
    entry.offset = entry.extents[0].offset;
    entry.extents[0].flat = false;
    entry.extents[0].box = Box::whole(entry.shape);
  } else if (!entry.extents.empty()) {
    entry.placement = Placement::Kind::flat;
    entry.layout = Layout::pieces;
  }
  table_bytes.add(entry);
  manifest.tensors.push_back(std::move(entry));
}

DType dtype_of(const std::vector<Run>& runs, const std::string& role) {
  const bool same = std::all_of(runs.begin(), runs.end(),
                                [&](const Run& run) { return run.dtype == runs[0].dtype; });
  if (runs.empty() || !same) fail(Errc::corrupt, "'{}' has no type, or two", role);
  return runs[0].dtype;
}

/// What all ranks have.
std::vector<std::string> roles_of(const std::vector<Partition>& ranks) {
  std::vector<std::string> roles{kWeights};
  for (const auto& [role, runs] : ranks[0].runs) {
    if (role != kWeights) roles.push_back(role);
  }
  for (const Partition& rank : ranks) {
    for (const std::string& role : roles) {
      if (rank.runs.size() == roles.size() && rank.runs.contains(role) &&
          rank.runs.at(role).size() == ranks[0].runs.at(kWeights).size()) {
        continue;
      }
      fail(Errc::corrupt, "its ranks do not all have the same state: '{}'", role);
    }
  }
  return roles;
}

}  // namespace

TensorEntry entry_of(const std::string& role, const std::string& name, DType dtype,
                     const Shape& shape) {
  TensorEntry entry;
  entry.name = fmt::format("{}/{}", role, name);
  entry.path = {role, name};
  entry.dtype = dtype;
  entry.shape = shape;
  return entry;
}

Partition read_partition(const torch::StateFile& file, TableBytes& table_bytes) {
  const Ref state = file.get(file.root(), "optimizer_state_dict");
  Partition partition;
  partition.stage = stage_of(file, state);
  const auto& graph = file.graph();
  Ref count = file.get(state, "partition_count");
  if (graph.kind(count) == Kind::list) {  // by group, and the same for all
    if (graph.elements(count).empty()) file.corrupt("'partition_count' is empty");
    count = graph.elements(count)[0];
  }
  partition.ranks = file.integer(count, "partition_count");
  const bool divided = partition.stage == 3;
  const char* key = divided ? "fp32_flat_groups" : "single_partition_of_fp32_groups";
  auto& weights = partition.runs[kWeights];
  for (const Ref ref : graph.elements(file.get(state, key))) {
    table_bytes.add_bytes(kRunBytes);
    weights.push_back(run_of(file, ref, key));
  }
  read_slots(file, file.find(state, divided ? "optimizer_state_dict" : "base_optimizer_state"),
             partition, table_bytes);
  return partition;
}

void add_groups(const std::vector<Partition>& ranks,
                const std::vector<std::vector<Parameter>>& groups, Manifest& manifest,
                TableBytes& table_bytes) {
  const std::vector<std::string> roles = roles_of(ranks);
  if (ranks[0].runs.at(kWeights).size() != groups.size()) {
    fail(Errc::corrupt, "the model has {} groups of parameters and the optimizer {}", groups.size(),
         ranks[0].runs.at(kWeights).size());
  }
  for (std::size_t g = 0; g < groups.size(); ++g) {
    std::uint64_t wanted = 0;
    for (const Parameter& parameter : groups[g]) wanted += element_count(parameter.shape);
    for (const std::string& role : roles) {
      std::vector<Run> runs;
      std::uint64_t found = 0;
      for (const Partition& rank : ranks) {
        runs.push_back(rank.runs.at(role)[g]);
        found += runs.back().elements;
      }
      // Padding makes them divisible by twice the number of ranks, and is less than that.
      if (found < wanted || found - wanted >= 2 * ranks.size()) {
        fail(Errc::corrupt, "group {} of '{}' has {} elements, and its parameters {}", g, role,
             found, wanted);
      }
      const DType dtype = dtype_of(runs, role);
      const Chain chain(std::move(runs));
      std::uint64_t first = 0;
      for (const Parameter& parameter : groups[g]) {
        TensorEntry entry = entry_of(role, parameter.name, dtype, parameter.shape);
        add_extents(chain, first, element_count(parameter.shape), 0, entry);
        first += element_count(parameter.shape);
        finish(std::move(entry), manifest, table_bytes);
      }
    }
  }
}

namespace {

/// The type of all ranks' runs.
DType common_dtype(const std::vector<Chain>& ranks, const std::string& role) {
  const DType dtype = dtype_of(ranks[0].runs, role);
  for (const Chain& rank : ranks) {
    if (dtype_of(rank.runs, role) != dtype) fail(Errc::corrupt, "'{}' has two types", role);
  }
  return dtype;
}

/// Elements of a divided parameter in each rank.
std::uint64_t part_of(const Parameter& parameter, std::size_t ranks) {
  return (element_count(parameter.shape) + ranks - 1) / ranks;
}

void add_part_by_part(const std::vector<Chain>& ranks, std::uint64_t first, const std::string& role,
                      DType dtype, const Parameter& parameter, Manifest& manifest,
                      TableBytes& table_bytes) {
  const std::uint64_t count = element_count(parameter.shape);
  const std::uint64_t part = part_of(parameter, ranks.size());
  TensorEntry entry = entry_of(role, parameter.name, dtype, parameter.shape);
  for (std::size_t r = 0; r < ranks.size(); ++r) {
    const std::uint64_t before = std::min(count, r * part);
    add_extents(ranks[r], first, std::min(part, count - before), before, entry);
  }
  finish(std::move(entry), manifest, table_bytes);
}

std::vector<Chain> chains_of(const std::vector<std::vector<Run>>& ranks) {
  std::vector<Chain> chains;
  for (const std::vector<Run>& runs : ranks) chains.emplace_back(runs);
  return chains;
}

}  // namespace

void add_divided_tensor(const std::vector<std::vector<Run>>& ranks, std::uint64_t first,
                        const std::string& role, const Parameter& parameter, Manifest& manifest,
                        TableBytes& table_bytes) {
  const std::vector<Chain> chains = chains_of(ranks);
  add_part_by_part(chains, first, role, common_dtype(chains, role), parameter, manifest,
                   table_bytes);
}

void add_divided(const std::vector<Partition>& ranks,
                 const std::vector<std::vector<Parameter>>& groups, Manifest& manifest,
                 TableBytes& table_bytes) {
  for (const std::string& role : roles_of(ranks)) {
    std::vector<std::vector<Run>> runs;
    for (const Partition& rank : ranks) runs.push_back(rank.runs.at(role));
    const std::vector<Chain> chains = chains_of(runs);
    const DType dtype = common_dtype(chains, role);
    std::uint64_t first = 0;
    for (const auto& group : groups) {
      for (const Parameter& parameter : group) {
        add_part_by_part(chains, first, role, dtype, parameter, manifest, table_bytes);
        first += part_of(parameter, ranks.size());
      }
    }
    // Each parameter's padding is in its parts, and nothing else is there: what is left over
    // belongs to a parameter that the model does not tell, and others may have been cut at wrong
    // places.
    for (std::size_t r = 0; r < chains.size(); ++r) {
      if (chains[r].ends.back() == first) continue;
      fail(Errc::corrupt, "rank {} has {} elements of '{}', and the parameters take {}", r,
           chains[r].ends.back(), role, first);
    }
  }
}

std::vector<std::vector<Parameter>> divided_groups(const std::vector<Partition>& ranks,
                                                   std::vector<std::vector<Parameter>> groups) {
  const std::vector<Run>& runs = ranks[0].runs.at(kWeights);
  const auto fills = [&](const std::vector<Parameter>& group, const Run& run) {
    std::uint64_t filled = 0;
    for (const Parameter& parameter : group) filled += part_of(parameter, ranks.size());
    return filled == run.elements;
  };
  if (std::equal(groups.begin(), groups.end(), runs.begin(), runs.end(), fills)) return groups;
  std::vector<Parameter> all;
  for (auto& group : groups) {
    all.insert(all.end(), std::make_move_iterator(group.begin()),
               std::make_move_iterator(group.end()));
  }
  groups.assign(std::max<std::size_t>(1, runs.size()), {});
  std::size_t at = 0;
  std::uint64_t left = runs.empty() ? 0 : runs[0].elements;
  for (const Parameter& parameter : all) {
    const std::uint64_t part = part_of(parameter, ranks.size());
    while (left == 0 && part != 0 && at + 1 < runs.size()) left = runs[++at].elements;
    if (part > left) return {std::move(all)};
    left -= part;
    groups[at].push_back(parameter);
  }
  return groups;
}

}  // namespace cairn::detail::deepspeed

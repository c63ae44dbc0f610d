#include "formats/megatron/reader.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "base/throw.hpp"
#include "formats/dcp/reader.hpp"
#include "formats/megatron/join.hpp"
#include "formats/torch/state_file.hpp"
#include "formats/torch/values.hpp"
#include "formats/torch/walk.hpp"
#include "os/file.hpp"
#include "os/small_file.hpp"

namespace cairn::detail {
namespace {

namespace fs = std::filesystem;
using megatron::Division;
using megatron::RankTensors;
using pickle::Kind;
using pickle::kNoRef;
using pickle::Ref;
using torch::Json;
using torch::StateFile;

constexpr std::string_view kPointer = "latest_checkpointed_iteration.txt";
constexpr std::string_view kState = "model_optim_rng.pt";
constexpr std::string_view kOptimizer = "distrib_optim.pt";

bool is_there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

/// A rank's directory, by the numbers in its name.
struct RankDirectory {
  fs::path path;
  std::vector<int> numbers;  ///< of tensor, pipeline and expert parallelism, as far as there are
};

/// The numbers in "mp_rank_01_002"; none where it is another name.
std::vector<int> numbers_in(std::string_view name) {
  constexpr std::string_view kStart = "mp_rank";
  std::vector<int> numbers;
  if (!name.starts_with(kStart)) return numbers;
  const char* at = name.data() + kStart.size();
  const char* const end = name.data() + name.size();
  while (at != end) {
    int number = 0;
    const auto read = *at == '_' ? std::from_chars(at + 1, end, number)
                                 : std::from_chars_result{at, std::errc::invalid_argument};
    if (read.ec != std::errc() || read.ptr < at + 3 || numbers.size() == 3 || number < 0) return {};
    numbers.push_back(number);
    at = read.ptr;
  }
  return numbers;
}

std::vector<RankDirectory> ranks_in(const fs::path& directory) {
  std::vector<RankDirectory> ranks;
  for (const fs::directory_entry& entry : entries_of(directory)) {
    std::error_code ignored;
    RankDirectory rank{entry.path(), numbers_in(entry.path().filename().string())};
    if (!rank.numbers.empty() && entry.is_directory(ignored)) ranks.push_back(std::move(rank));
  }
  std::sort(ranks.begin(), ranks.end(), [](const RankDirectory& a, const RankDirectory& b) {
    const auto key = [](const RankDirectory& rank) {  // stages first
      std::vector<int> numbers = rank.numbers;
      if (numbers.size() > 1) std::swap(numbers[0], numbers[1]);
      return numbers;
    };
    return key(a) < key(b);
  });
  return ranks;
}

/// The directory of the iteration that the pointer names, or the given one where there is none.
fs::path iteration_in(const fs::path& directory, Manifest& manifest) {
  const auto text = read_small_file(directory / kPointer);
  if (!text) return directory;
  const File file = File::open_read(directory / kPointer);
  manifest.files.push_back(
      {directory / kPointer, file.size(), Access::extents, file.fingerprint()});
  std::string_view word = *text;
  word = word.substr(0, word.find_last_not_of(" \r\n\t") + 1);
  std::uint64_t iteration = 0;
  const auto read = std::from_chars(word.data(), word.data() + word.size(), iteration);
  const bool number = !word.empty() && read.ec == std::errc() && read.ptr == word.end();
  if (!number && word != "release") {
    fail(Errc::corrupt, "its '{}' names no iteration", kPointer);
  }
  const std::string name = number ? fmt::format("iter_{:07}", iteration) : "release";
  std::error_code ignored;
  if (!fs::is_directory(directory / name, ignored)) {
    fail(Errc::corrupt, "its '{}' names '{}', which does not exist", kPointer, name);
  }
  return directory / name;
}

/// What `args` says, a namespace of the program's options; nothing where it does not.
class Options {
 public:
  explicit Options(const StateFile& file) : file_(file) {
    const Ref args = file.find(file.root(), "args");
    if (args == kNoRef) return;
    options_ =
        file.graph().kind(args) == Kind::object ? torch::attributes_of(file.graph(), args) : args;
  }
  std::optional<std::int64_t> integer(std::string_view name) const {
    const Ref ref = file_.find(options_, name);
    if (ref == kNoRef || file_.graph().kind(ref) != Kind::integer) return std::nullopt;
    return file_.graph().integer(ref);
  }
  std::optional<bool> boolean(std::string_view name) const {
    const Ref ref = file_.find(options_, name);
    if (ref == kNoRef || file_.graph().kind(ref) != Kind::boolean) return std::nullopt;
    return file_.graph().boolean(ref);
  }
  bool known() const { return options_ != kNoRef; }
  bool has_text(std::string_view name) const {
    const Ref ref = file_.find(options_, name);
    return ref != kNoRef && file_.graph().kind(ref) == Kind::text;
  }

 private:
  const StateFile& file_;
  Ref options_ = kNoRef;
};

/// Whether the MLP's first layer is two: the options say so in several ways.
std::optional<bool> gated_by(const Options& options) {
  if (!options.known()) return std::nullopt;
  constexpr std::array kNames{"swiglu", "geglu", "reglu", "gated_linear_unit"};
  const bool gated = std::any_of(kNames.begin(), kNames.end(), [&](const char* name) {
    return options.boolean(name).value_or(false);
  });
  return gated || options.has_text("glu_activation");
}

double version_of(const StateFile& file) {
  const Ref version = file.find(file.root(), "checkpoint_version");
  if (version == kNoRef) return 0;
  const auto& graph = file.graph();
  if (graph.kind(version) == Kind::real) return graph.real(version);
  return static_cast<double>(file.integer(version, "checkpoint_version"));
}

[[noreturn]] void refuse_experts(const std::string& name) {
  fail(Errc::unsupported,
       "'{}' is a part of a model whose experts are divided among ranks, which cairn cannot put "
       "together; convert it with Megatron's own tools to one rank for all experts",
       name);
}

class Reader {
 public:
  Reader(Manifest& manifest, TableBytes& table_bytes)
      : manifest_(manifest), table_bytes_(table_bytes) {}

  void read(const fs::path& iteration) {
    const std::vector<RankDirectory> found = ranks_in(iteration);
    if (found.empty()) {
      fail(Errc::corrupt, "its '{}' has no directory 'mp_rank_00'", iteration.filename().string());
    }
    facts_["directory"] = iteration.filename().string();
    for (const RankDirectory& rank : found) read_rank(rank, found.size());
    check_complete(found);
    megatron::Joined joined = megatron::join(std::move(ranks_), division_);
    facts_["tensor_parallel"] = division_.tensor_ranks;
    facts_["pipeline_parallel"] = division_.pipeline_ranks;
    facts_["joined"] = joined.joined;
    facts_["separate"] = joined.separate;
    if (joined.separate != 0) {
      manifest_.warnings.push_back(fmt::format(
          "{} tensors of the model stay apart by ranks: how they are divided is not known by "
          "their names",
          joined.separate));
    }
    manifest_.tensors = TensorTable(std::move(joined.tensors));
    manifest_.documents["megatron"] = facts_.dump(-1, ' ', false, Json::error_handler_t::replace);
  }

 private:
  void read_rank(const RankDirectory& rank, std::size_t count) {
    const std::string label = rank.path.filename().string();
    if (!is_there(rank.path / kState)) {
      fail(Errc::corrupt, "its '{}' has no '{}'", label, kState);
    }
    if (is_there(rank.path / kOptimizer)) {
      manifest_.warnings.push_back(
          fmt::format("'{}/{}' is left out: the order of parameters in it is not in the files",
                      label, kOptimizer));
    }
    const StateFile file(rank.path / kState, manifest_, table_bytes_,
                         fmt::format("{}/{}", label, kState));
    const Options options(file);
    if (ranks_.empty()) read_facts(file, options);
    if (rank.numbers.size() == 3 ||
        (rank.numbers.size() == 2 && options.integer("expert_model_parallel_size") > 1 &&
         options.integer("pipeline_model_parallel_size").value_or(1) == 1)) {
      refuse_experts(label);
    }
    torch::WalkBudget budget;
    torch::Contents contents = torch::walk(file.graph(), file.storages(), table_bytes_, budget);
    for (TensorEntry& tensor : contents.tensors) {
      for (Extent& extent : tensor.extents) extent.file = file.number();
    }
    if (ranks_.empty()) {  // of the others, only tensors are told
      manifest_.documents["objects"] = std::move(contents.objects);
      manifest_.documents["opaque"] = std::move(contents.opaque);
      manifest_.documents["arrays"] = std::move(contents.arrays);
      if (count == 1) manifest_.documents["aliases"] = Json(contents.aliases).dump();
    }
    for (std::string& warning : contents.warnings) {
      manifest_.warnings.push_back(fmt::format("'{}': {}", label, warning));
    }
    ranks_.push_back({rank.numbers[0], rank.numbers.size() > 1 ? rank.numbers[1] : 0, label,
                      std::move(contents.tensors)});
  }

  void read_facts(const StateFile& file, const Options& options) {
    division_.checkpoint_version = version_of(file);
    division_.gated = gated_by(options);
    wanted_tensor_ = options.integer("tensor_model_parallel_size");
    wanted_pipeline_ = options.integer("pipeline_model_parallel_size");
    facts_["checkpoint_version"] = division_.checkpoint_version;
    const Ref iteration = file.find(file.root(), "iteration");
    if (iteration != kNoRef) facts_["iteration"] = file.integer(iteration, "iteration");
  }

  /// Every rank's file is there, as many as the options say.
  void check_complete(const std::vector<RankDirectory>& found) {
    for (const RankTensors& rank : ranks_) {
      division_.tensor_ranks = std::max(division_.tensor_ranks, rank.tensor + 1);
      division_.pipeline_ranks = std::max(division_.pipeline_ranks, rank.pipeline + 1);
    }
    const std::int64_t tensor = wanted_tensor_.value_or(division_.tensor_ranks);
    const std::int64_t pipeline = wanted_pipeline_.value_or(division_.pipeline_ranks);
    const bool same_form = std::all_of(found.begin(), found.end(), [&](const auto& rank) {
      return rank.numbers.size() == found[0].numbers.size();
    });
    const auto ranks = static_cast<std::int64_t>(found.size());
    if (tensor == division_.tensor_ranks && pipeline == division_.pipeline_ranks && same_form &&
        ranks == std::int64_t{division_.tensor_ranks} * division_.pipeline_ranks) {
      return;
    }
    fail(Errc::corrupt,
         "it was saved by {} x {} ranks (tensor x pipeline parallelism) and has the files of {}",
         tensor, pipeline, ranks);
  }

  Manifest& manifest_;
  TableBytes& table_bytes_;
  Division division_;
  std::optional<std::int64_t> wanted_tensor_;
  std::optional<std::int64_t> wanted_pipeline_;
  std::vector<RankTensors> ranks_;
  Json facts_ = Json::object();
};

}  // namespace

bool is_megatron(const fs::path& directory) {
  if (is_there(directory / kPointer)) return true;
  const std::vector<RankDirectory> ranks = ranks_in(directory);
  return std::any_of(ranks.begin(), ranks.end(),
                     [](const RankDirectory& rank) { return is_there(rank.path / kState); });
}

Manifest read_megatron(const fs::path& directory, TableBytes& table_bytes) {
  Manifest manifest;
  manifest.format = "megatron";
  const fs::path iteration = iteration_in(directory, manifest);
  // Newer ones save PyTorch's distributed checkpoints (the format `torch_dist`).
  if (is_there(iteration / ".metadata")) {
    Manifest distributed = read_dcp(iteration, table_bytes);
    // Behind the others: extents name their files by number.
    distributed.files.insert(distributed.files.end(), manifest.files.begin(), manifest.files.end());
    return distributed;
  }
  Reader(manifest, table_bytes).read(iteration);
  return manifest;
}

}  // namespace cairn::detail

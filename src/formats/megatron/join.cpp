#include "formats/megatron/join.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <map>
#include <set>
#include <string_view>
#include <utility>

#include "base/digest.hpp"
#include "base/throw.hpp"
#include "formats/torch/values.hpp"

namespace cairn::detail::megatron {
namespace {

constexpr std::string_view kModel = "model";
constexpr std::string_view kLayers = "layers.";

/// Whether `name` ends with `end`, at the start of a component.
bool ends_with(std::string_view name, std::string_view end) {
  return name.ends_with(end) &&
         (name.size() == end.size() || name[name.size() - end.size() - 1] == '.');
}

template <std::size_t N>
bool ends_with_one_of(std::string_view name, const std::array<std::string_view, N>& ends) {
  return std::any_of(ends.begin(), ends.end(),
                     [&](std::string_view end) { return ends_with(name, end); });
}

// Names of Megatron-LM, its older ones first, then those of its core.
constexpr std::array<std::string_view, 9> kColumns{"word_embeddings.weight",
                                                   "word_embeddings_for_head.weight",
                                                   "output_layer.weight",
                                                   "query.weight",
                                                   "query.bias",
                                                   "linear_q.weight",
                                                   "linear_q.bias",
                                                   "linear_kv.weight",
                                                   "linear_kv.bias"};
constexpr std::array<std::string_view, 4> kQueryKeyValue{
    "query_key_value.weight", "query_key_value.bias", "linear_qkv.weight", "linear_qkv.bias"};
constexpr std::array<std::string_view, 4> kFirstOfMlp{"dense_h_to_4h.weight", "dense_h_to_4h.bias",
                                                      "linear_fc1.weight", "linear_fc1.bias"};
constexpr std::array<std::string_view, 6> kRows{
    "attention.dense.weight", "self_attention.dense.weight", "inter_attention.dense.weight",
    "dense_4h_to_h.weight",   "linear_proj.weight",          "linear_fc2.weight"};
// Added after the sum over the ranks: each of them has all.
constexpr std::array<std::string_view, 6> kBiases{
    "attention.dense.bias", "self_attention.dense.bias", "inter_attention.dense.bias",
    "dense_4h_to_h.bias",   "linear_proj.bias",          "linear_fc2.bias"};
constexpr std::array<std::string_view, 5> kReplicated{
    "position_embeddings.weight", "tokentype_embeddings.weight", "layer_norm_weight",
    "layer_norm_bias", "rotary_pos_emb.inv_freq"};

/// The number of a model that the path is below: 0 of "model", n of "modeln".
std::optional<int> chunk_of(const TensorEntry& tensor) {
  if (tensor.path.size() < 2) return std::nullopt;
  const auto* root = std::get_if<std::string>(&tensor.path[0]);
  if (root == nullptr || !root->starts_with(kModel)) return std::nullopt;
  if (root->size() == kModel.size()) return 0;
  int number = 0;
  const char* end = root->data() + root->size();
  const auto read = std::from_chars(root->data() + kModel.size(), end, number);
  const bool whole = read.ec == std::errc() && read.ptr == end && number >= 0;
  return whole ? std::optional(number) : std::nullopt;
}

/// Where a path says which layer it is of.
struct Layer {
  std::size_t key = 0;    ///< in the path
  std::size_t start = 0;  ///< of the number, in the key
  std::size_t count = 0;  ///< of its digits
  std::uint32_t number = 0;
  std::string stack;  ///< what is before it: an encoder's layers and a decoder's are two stacks
};

std::optional<Layer> layer_of(const TensorEntry& tensor) {
  Layer layer;
  for (layer.key = 1; layer.key < tensor.path.size(); ++layer.key) {
    const auto* key = std::get_if<std::string>(&tensor.path[layer.key]);
    if (key == nullptr) return std::nullopt;
    const std::size_t at = key->starts_with(kLayers) ? 0 : key->find(".layers.");
    if (at == std::string::npos) {
      layer.stack += *key + ".";
      continue;
    }
    layer.start = at + (at == 0 && key->starts_with(kLayers) ? 0 : 1) + kLayers.size();
    const auto read =
        std::from_chars(key->data() + layer.start, key->data() + key->size(), layer.number);
    layer.count = static_cast<std::size_t>(read.ptr - (key->data() + layer.start));
    if (read.ec != std::errc() || layer.start + layer.count >= key->size() ||
        (*key)[layer.start + layer.count] != '.') {
      return std::nullopt;
    }
    layer.stack += key->substr(0, layer.start);
    return layer;
  }
  return std::nullopt;
}

/// Numbers layers through all stages. Each counts its own from 0; a stage with several models
/// (interleaved) has every so-many-th part of the whole.
class Numbering {
 public:
  explicit Numbering(const std::vector<RankTensors>& ranks) {
    for (const RankTensors& rank : ranks) {
      if (rank.tensor != 0) continue;  // the others have the same layers
      for (const TensorEntry& tensor : rank.tensors) {
        const auto chunk = chunk_of(tensor);
        const auto layer = chunk ? layer_of(tensor) : std::nullopt;
        if (!layer) continue;
        std::uint32_t& most = counts_[layer->stack][{*chunk, rank.pipeline}];
        most = std::max(most, layer->number + 1);
      }
    }
  }

  /// The tensor's path below `model`, its layer counted from the model's start.
  std::vector<PathKey> path_of(const TensorEntry& tensor, int chunk, int stage) const {
    std::vector<PathKey> path = tensor.path;
    path[0] = std::string(kModel);
    const auto layer = layer_of(tensor);
    if (!layer) return path;
    std::uint64_t number = layer->number;
    for (const auto& [place, count] : counts_.at(layer->stack)) {
      if (place < std::pair(chunk, stage)) number += count;
    }
    auto& key = std::get<std::string>(path[layer->key]);
    key.replace(layer->start, layer->count, std::to_string(number));
    return path;
  }

 private:
  std::map<std::string, std::map<std::pair<int, int>, std::uint32_t>> counts_;  // chunk, stage
};

/// The keys below `model`, with dots.
std::string dotted(const std::vector<PathKey>& path) {
  std::string name;
  for (std::size_t i = 1; i < path.size(); ++i) {
    const auto* key = std::get_if<std::string>(&path[i]);
    if (key == nullptr) return {};
    name += (i == 1 ? "" : ".") + *key;
  }
  return name;
}

bool is_dense(const TensorEntry& tensor) { return tensor.layout == Layout::contiguous; }

/// The tensor of one rank that is a part of one of the model's.
struct Part {
  std::size_t rank = 0;  ///< of tensor parallelism
  TensorEntry* tensor = nullptr;
};

/// The whole tensor of parts that lie one behind the other in dimension `dim`, each of `pieces`
/// matrices that do so by themselves. Nothing where the parts are not alike.
std::optional<TensorEntry> put_together(const std::vector<Part>& parts, std::size_t dim,
                                        std::uint64_t pieces) {
  const TensorEntry& first = *parts[0].tensor;
  const bool alike = std::all_of(parts.begin(), parts.end(), [&](const Part& part) {
    const TensorEntry& tensor = *part.tensor;
    return tensor.dtype == first.dtype && tensor.shape == first.shape && is_dense(tensor);
  });
  if (!alike || dim >= first.shape.size() || first.shape[dim] % pieces != 0) return std::nullopt;
  TensorEntry whole;
  whole.dtype = first.dtype;
  whole.shape = first.shape;
  whole.shape[dim] *= parts.size();
  if (element_count(whole.shape) == 0) return whole;
  const std::uint64_t height = first.shape[dim] / pieces;
  const std::uint64_t piece_bytes = first.bytes() / pieces;
  for (std::uint64_t t = 0; t < parts.size(); ++t) {
    for (std::uint64_t p = 0; p < pieces; ++p) {
      Extent extent = parts[t].tensor->extents[0];
      extent.offset += p * piece_bytes;
      extent.box = Box::whole(first.shape);
      extent.box.start[dim] = (p * parts.size() + t) * height;
      extent.box.count[dim] = height;
      whole.extents.push_back(std::move(extent));
    }
  }
  whole.placement = Placement::Kind::block;
  whole.layout = Layout::pieces;
  return whole;
}

/// A tensor's path as a key. The name follows from the path, so that its hash, which is compared
/// first, does so, too; two paths may have one name.
struct PathOf {
  explicit PathOf(const TensorEntry& entry) : hash(digest_of(entry.name)), tensor(&entry) {}
  bool operator<(const PathOf& other) const {
    return hash != other.hash ? hash < other.hash : tensor->path < other.tensor->path;
  }

  std::uint64_t hash;
  const TensorEntry* tensor;
};

/// Entries are moved, never copied: what is made of them takes at most about as much memory again.
class Joiner {
 public:
  Joiner(std::vector<RankTensors> ranks, const Division& division)
      : ranks_(std::move(ranks)), division_(division), numbering_(ranks_) {
    std::size_t tensors = 0;
    for (const RankTensors& rank : ranks_) tensors += rank.tensors.size();
    result_.tensors.reserve(tensors);
  }

  Joined run() {
    const auto tensor_ranks = static_cast<std::size_t>(division_.tensor_ranks);
    for (std::size_t first = 0; first < ranks_.size(); first += tensor_ranks) add_stage(first);
    return std::move(result_);
  }

 private:
  /// The ranks of one stage: [first, first + tensor ranks).
  void add_stage(std::size_t first) {
    const auto count = static_cast<std::size_t>(division_.tensor_ranks);
    std::map<PathOf, std::size_t> known;
    std::vector<std::vector<Part>> found;
    for (std::size_t t = 0; t < count; ++t) {
      for (TensorEntry& tensor : ranks_[first + t].tensors) {
        if (!chunk_of(tensor)) {
          add_apart(std::move(tensor), ranks_[first + t]);
          continue;
        }
        const auto [at, is_new] = known.try_emplace(PathOf(tensor), found.size());
        if (is_new) found.emplace_back();
        std::vector<Part>& parts = found[at->second];
        if (!parts.empty() && parts.back().rank == t) {
          add_apart(std::move(tensor), ranks_[first + t]);  // a second one of this rank
          continue;
        }
        parts.push_back({t, &tensor});
      }
    }
    known.clear();  // whose keys are about to be moved
    for (const auto& parts : found) add(first, parts);
  }

  void add(std::size_t first, const std::vector<Part>& found) {
    if (found.size() == static_cast<std::size_t>(division_.tensor_ranks)) {
      const TensorEntry& any = *found[0].tensor;
      std::vector<PathKey> path = numbering_.path_of(any, *chunk_of(any), ranks_[first].pipeline);
      std::string name = torch::name_of(path);
      if (!taken_.contains(name)) {
        if (auto whole = joined(found, path)) {
          whole->path = std::move(path);
          whole->name = name;
          result_.joined += found.size() > 1 && whole->layout == Layout::pieces ? 1 : 0;
          result_.tensors.push_back(std::move(*whole));
          taken_.insert(std::move(name));
          return;
        }
      }
    }
    for (const Part& part : found) {
      ++result_.separate;
      add_apart(std::move(*part.tensor), ranks_[first + part.rank]);
    }
  }

  /// The parts put together, whose path is then `path`; nothing where that is not known, and then
  /// they are as they were.
  std::optional<TensorEntry> joined(const std::vector<Part>& parts,
                                    const std::vector<PathKey>& path) const {
    if (parts.size() == 1) return std::move(*parts[0].tensor);
    switch (split_of(dotted(path), division_)) {
      case Split::replicated:
        return std::move(*parts[0].tensor);
      case Split::columns:
        return put_together(parts, 0, 1);
      case Split::rows:
        return put_together(parts, 1, 1);
      case Split::halves:
        return put_together(parts, 0, 2);
      case Split::thirds:
        return put_together(parts, 0, 3);
      case Split::unknown:
        break;
    }
    return std::nullopt;
  }

  /// A tensor as it is in its rank's file.
  void add_apart(TensorEntry tensor, const RankTensors& rank) {
    if (ranks_.size() > 1) {
      tensor.path.insert(tensor.path.begin(), PathKey(rank.label));
      tensor.name = torch::name_of(tensor.path);
    }
    result_.tensors.push_back(std::move(tensor));
  }

  std::vector<RankTensors> ranks_;
  const Division& division_;
  Numbering numbering_;
  std::set<std::string> taken_;
  Joined result_;
};

}  // namespace

Split split_of(const std::string& name, const Division& division) {
  // Experts may be divided in ways of their own.
  if (name.find("experts.") != std::string::npos) return Split::unknown;
  if (ends_with_one_of(name, kColumns)) return Split::columns;
  if (ends_with_one_of(name, kQueryKeyValue)) {
    return division.checkpoint_version < 1 ? Split::thirds : Split::columns;
  }
  if (ends_with_one_of(name, kFirstOfMlp)) {
    if (!division.gated) return Split::unknown;
    return *division.gated ? Split::halves : Split::columns;
  }
  if (ends_with_one_of(name, kRows)) return Split::rows;
  const bool is_norm = name.ends_with("norm.weight") || name.ends_with("norm.bias");
  if (is_norm || ends_with_one_of(name, kBiases) || ends_with_one_of(name, kReplicated)) {
    return Split::replicated;
  }
  return Split::unknown;
}

Joined join(std::vector<RankTensors> ranks, const Division& division) {
  return Joiner(std::move(ranks), division).run();
}

}  // namespace cairn::detail::megatron

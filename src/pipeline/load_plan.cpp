#include "pipeline/load_plan.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>
#include <unordered_set>
#include <utility>

#include "base/near_names.hpp"
#include "base/throw.hpp"
#include "cairn/tensor_view.hpp"
#include "pipeline/path_patterns.hpp"
#include "plan/region.hpp"

namespace cairn::detail {
namespace {

using Json = nlohmann::json;

constexpr std::string_view kModel = "model/";

std::string in_model(const std::string& dotted) {
  return std::string(kModel) + escape_component(dotted);
}

Shape shape_in(const Manifest& manifest, std::size_t position) {
  const auto shape = manifest.tensors.head(position).shape;
  return {shape.begin(), shape.end()};
}

Shape shape_from(const Json& json) {
  const auto numbers = json.get<std::vector<std::uint64_t>>();
  return {numbers.begin(), numbers.end()};
}

const std::string& key_of(const std::string& text) { return text; }
template <class T>
const std::string& key_of(const T& item) {
  return item.name;
}

template <class T>
void add_new(std::vector<T>& to, const std::vector<T>& more) {
  std::unordered_set<std::string> known;
  for (const T& item : to) known.insert(key_of(item));
  for (const T& item : more) {
    if (known.insert(key_of(item)).second) to.push_back(item);
  }
}

std::string nearest_name(const Manifest& manifest, const CheckpointNames& names,
                         const std::string& wanted) {
  std::vector<std::string_view> known;
  for (std::size_t t = 0; t < manifest.tensors.size(); ++t) {
    if (names.name(t).starts_with(kModel)) known.push_back(names.name(t));
  }
  return list_near(wanted, known);
}

class Planner {
 public:
  Planner(const Manifest& manifest, const CheckpointNames& names,
          const std::map<std::string, std::string>& aliases, const LoadingConfig& loading)
      : manifest_(manifest),
        names_(names),
        aliases_(aliases),
        loading_(loading),
        kept_(loading.reset_layers) {
    plan_.used.assign(manifest.tensors.size(), static_cast<std::uint64_t>(Use::none));
  }

  void add(const WantedTensor& tensor) {
    PlannedTensor& planned = plan_.tensors.emplace_back();
    const std::string& name = tensor.names.front();
    const bool kept = kept_.matches(name);
    const bool found = find_source(tensor, planned);
    if (kept) {
      plan_.notes.skipped.push_back({in_model(name), "it is in reset_layers"});
      if (found) vote(planned.position, Use::passed);
    } else if (!found && tensor.optional) {
      plan_.notes.skipped.push_back({in_model(name), "the checkpoint has no such adapter"});
    } else if (!found) {
      plan_.notes.missing.push_back(in_model(name));
    } else if (const Shape shape = shape_in(manifest_, planned.position); shape != tensor.shape) {
      plan_.notes.mismatched.push_back(
          {std::string(manifest_.tensors.head(planned.position).name), shape, tensor.shape});
      vote(planned.position, Use::passed);
    } else {
      planned.load = true;
      vote(planned.position, Use::loaded);
      note_ties(tensor, planned);
    }
  }

  LoadPlan take() {
    check();
    return std::move(plan_);
  }

 private:
  bool found_as(const std::string& dotted, PlannedTensor& planned) const {
    const auto position = names_.find(in_model(dotted));
    if (!position) return false;
    planned.position = *position;
    planned.source = dotted;
    return true;
  }

  /// One of the tensor's names, or what such a name was tied to when it was saved.
  bool find_source(const WantedTensor& tensor, PlannedTensor& planned) const {
    for (const std::string& name : tensor.names) {
      if (found_as(name, planned)) return true;
    }
    for (const std::string& name : tensor.names) {
      const auto alias = aliases_.find(name);
      if (alias != aliases_.end() && found_as(alias->second, planned)) return true;
    }
    return false;
  }

  void vote(std::size_t position, Use use) {
    auto& known = plan_.used[position];
    known = std::max(known, static_cast<std::uint64_t>(use));
  }

  /// Two names for the same bytes, as PyTorch writes tied weights.
  bool is_same(std::size_t one, std::size_t other) const {
    const TensorHead a = manifest_.tensors.head(one);
    const TensorHead b = manifest_.tensors.head(other);
    return a.layout == Layout::contiguous && b.layout == Layout::contiguous && a.file == b.file &&
           a.offset == b.offset && a.offset != 0;
  }

  void note_ties(const WantedTensor& tensor, const PlannedTensor& planned) {
    for (const std::string& name : tensor.names) {
      const auto position = names_.find(in_model(name));
      if (!position || *position == planned.position) continue;
      vote(*position, Use::tied);
      if (is_same(*position, planned.position)) continue;
      plan_.notes.warnings.push_back(fmt::format(
          "the model ties '{}' to '{}', but the checkpoint holds both; the values of '{}' were "
          "taken for both",
          name, planned.source, planned.source));
    }
  }

  void check() const {
    const auto& notes = plan_.notes;
    const std::string file = manifest_.path().string();
    if (is_strict(loading_) && !notes.missing.empty()) {
      const std::string near = nearest_name(manifest_, names_, notes.missing.front());
      fail(Errc::mismatch, "'{}' lacks {}, which the given model has; nothing was loaded{}{}", file,
           list_some(notes.missing), near.empty() ? "" : "; nearest to the first: ", near);
    }
    const bool skips = loading_.type == LoadingType::transfer_learning && loading_.skip_mismatched;
    if (skips || notes.mismatched.empty()) return;
    const ShapeMismatch& first = notes.mismatched.front();
    fail(Errc::mismatch,
         "tensor '{}' has shape {} in '{}' but global shape {} in memory{}; nothing was loaded",
         first.name, to_string(first.in_checkpoint), file, to_string(first.in_memory),
         notes.mismatched.size() == 1
             ? ""
             : fmt::format(" (and {} more tensors)", notes.mismatched.size() - 1));
  }

  const Manifest& manifest_;
  const CheckpointNames& names_;
  const std::map<std::string, std::string>& aliases_;
  const LoadingConfig& loading_;
  PathPatterns kept_;
  LoadPlan plan_;
};

/// Whether the extent has the elements of the piece, and no others.
bool is_just(const Extent& extent, const Placement& piece) {
  using Kind = Placement::Kind;
  if (extent.flat == (piece.kind == Kind::flat)) return extent.box == piece.box;
  if (extent.box.elements() != piece.elements()) return false;
  const auto at = first_of_run(piece);
  return at && at == first_of_run(
                         {extent.flat ? Kind::flat : Kind::block, piece.global_shape, extent.box});
}

void check_unexpected(const Manifest& manifest, const std::vector<std::string>& unexpected,
                      bool with_optimizer) {
  if (unexpected.empty()) return;
  const bool adapters =
      std::any_of(unexpected.begin(), unexpected.end(), [](const std::string& name) {
        return name.ends_with(".lora_A") || name.ends_with(".lora_B");
      });
  fail(Errc::mismatch, "'{}' holds {}, which the given model{} does not have; nothing was loaded{}",
       manifest.path().string(), list_some(unexpected), with_optimizer ? " or optimizer" : "",
       adapters ? "; it was saved with LoRA adapters: give the lora modifier that it was saved with"
                : "");
}

void check_share(const Manifest& manifest, const LoadingConfig& loading, std::size_t loaded,
                 const LoadReport& report) {
  const std::size_t wanted = loaded + report.missing.size() + report.mismatched.size();
  if (wanted == 0) return;
  std::vector<std::string> without = report.missing;
  for (const ShapeMismatch& tensor : report.mismatched) without.push_back(tensor.name);
  if (loaded == 0) {
    fail(Errc::mismatch,
         "nothing of '{}' fits the model, which wants {}; nothing was loaded: another checkpoint, "
         "or rename rules, may fit",
         manifest.path().string(), list_some(without));
  }
  if (report.fraction_matched >= loading.min_match) return;
  fail(
      Errc::mismatch,
      "'{}' fits {} of the model's {} tensors, a share of {:.3g}, but min_match is {:.3g}; without "
      "a match are {}; nothing was loaded",
      manifest.path().string(), loaded, wanted, report.fraction_matched, loading.min_match,
      list_some(without));
}

}  // namespace

Use use_of(const TensorEntry& tensor, const Placement& piece) {
  const std::uint64_t elements = piece.elements();
  const bool whole = elements == element_count(tensor.shape);
  if (elements == 0 || (whole && tensor.placement == Placement::Kind::replicated)) {
    return Use::loaded;
  }
  const auto holds = [&](const Extent& extent) { return is_just(extent, piece); };
  return std::any_of(tensor.extents.begin(), tensor.extents.end(), holds) ? Use::loaded
                                                                          : Use::resharded;
}

bool is_strict(const LoadingConfig& loading) {
  return loading.type == LoadingType::warm_start || loading.strict;
}

std::string encode(const LoadNotes& notes) {
  Json json{{"missing", notes.missing}, {"warnings", notes.warnings}};
  json["mismatched"] = json["skipped"] = Json::array();
  for (const auto& [name, in_checkpoint, in_memory] : notes.mismatched) {
    json["mismatched"].push_back({name, in_checkpoint, in_memory});
  }
  for (const auto& [name, reason] : notes.skipped) json["skipped"].push_back({name, reason});
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

LoadNotes decode_notes(const std::string& text) {
  const Json json = Json::parse(text);
  LoadNotes notes;
  notes.missing = json.at("missing").get<std::vector<std::string>>();
  notes.warnings = json.at("warnings").get<std::vector<std::string>>();
  for (const Json& item : json.at("mismatched")) {
    notes.mismatched.push_back(
        {item.at(0).get<std::string>(), shape_from(item.at(1)), shape_from(item.at(2))});
  }
  for (const Json& item : json.at("skipped")) {
    notes.skipped.push_back({item.at(0).get<std::string>(), item.at(1).get<std::string>()});
  }
  return notes;
}

void unite(LoadNotes& notes, const LoadNotes& more) {
  add_new(notes.missing, more.missing);
  add_new(notes.mismatched, more.mismatched);
  add_new(notes.skipped, more.skipped);
  add_new(notes.warnings, more.warnings);
}

LoadPlan plan_load(const Manifest& manifest, const CheckpointNames& names,
                   const std::map<std::string, std::string>& aliases,
                   const std::vector<WantedTensor>& wanted, const LoadingConfig& loading) {
  Planner planner(manifest, names, aliases, loading);
  for (const WantedTensor& tensor : wanted) planner.add(tensor);
  return planner.take();
}

std::vector<std::uint64_t> count_matches(const Manifest& manifest,
                                         const std::vector<std::string>& prefixes,
                                         const std::vector<std::string>& wanted) {
  std::vector<std::uint64_t> counts(prefixes.size(), 0);
  const TensorNames names(manifest.tensors);
  for (std::size_t p = 0; p < prefixes.size(); ++p) {
    for (const std::string& name : wanted)
      counts[p] += names.contains(in_model(prefixes[p] + name));
  }
  return counts;
}

LoadReport judge_load(const Manifest& manifest, const CheckpointNames& names,
                      const std::vector<std::uint64_t>& used, const LoadNotes& notes,
                      const LoadingConfig& loading, bool with_optimizer) {
  LoadReport report;
  report.missing = notes.missing;
  report.mismatched = notes.mismatched;
  report.skipped = notes.skipped;
  const PathPatterns kept(loading.reset_layers);
  std::size_t model_loaded = 0;
  for (std::size_t t = 0; t < manifest.tensors.size(); ++t) {
    const std::string name(manifest.tensors.head(t).name);
    const bool of_model = name.starts_with(kModel);
    if (used[t] == static_cast<std::uint64_t>(Use::resharded)) report.resharded.push_back(name);
    if (used[t] >= static_cast<std::uint64_t>(Use::loaded)) {
      report.loaded.push_back(name);
      model_loaded += of_model ? 1 : 0;
    }
    if (used[t] != static_cast<std::uint64_t>(Use::none)) continue;
    if (names.is_beside(t)) {
      report.skipped.push_back(
          {name,
           fmt::format("it lies beside the model, whose names begin with '{}'", names.wrapper())});
    } else if (of_model && kept.matches(unescape_component(names.name(t).substr(kModel.size())))) {
      report.skipped.push_back({name, "it is in reset_layers"});
    } else if (of_model || (with_optimizer && name.starts_with("optimizer/"))) {
      report.unexpected.push_back(name);
    }
  }
  const std::size_t wanted = model_loaded + report.missing.size() + report.mismatched.size();
  if (wanted != 0) {
    report.fraction_matched = static_cast<double>(model_loaded) / static_cast<double>(wanted);
  }
  if (is_strict(loading)) check_unexpected(manifest, report.unexpected, with_optimizer);
  check_share(manifest, loading, model_loaded, report);
  return report;
}

std::string list_some(const std::vector<std::string>& names) {
  constexpr std::size_t kShown = 3;
  std::string text;
  for (std::size_t i = 0; i < std::min(kShown, names.size()); ++i) {
    text += fmt::format("{}'{}'", i == 0 ? "" : ", ", names[i]);
  }
  if (names.size() > kShown) text += fmt::format(" and {} more", names.size() - kShown);
  return text;
}

}  // namespace cairn::detail

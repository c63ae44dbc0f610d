#include "diff_report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <optional>
#include <set>
#include <string_view>

#include "base/json_numbers.hpp"
#include "base/json_text.hpp"
#include "checkpoint/convert_documents.hpp"
#include "manifest/container_names.hpp"
#include "output.hpp"

namespace cairn::tool {
namespace {

// They name ranks, engine and host of a save, the run that made it, or its shards, which say
// nothing about the state.
constexpr std::array<std::string_view, 6> kOriginDocuments{"topology", "provenance", "lineage",
                                                           "index",    "shards",     "archive"};

Json max_abs(const Pair& pair) {
  if (is_exact(pair.a->dtype, pair.b->dtype)) return pair.values->max_abs_integer;
  return detail::number_to_json(pair.values->max_abs);
}

std::string max_abs_text(const Pair& pair) {
  return is_exact(pair.a->dtype, pair.b->dtype) ? fmt::format("{}", pair.values->max_abs_integer)
                                                : fmt::format("{:.6g}", pair.values->max_abs);
}

bool same_document(const std::string& a, const std::string& b) {
  if (a == b) return true;
  const Json left = detail::parse_ordered(a);
  const Json right = detail::parse_ordered(b);
  if (left.is_discarded() || right.is_discarded()) return false;
  return nlohmann::json(left) == nlohmann::json(right);  // whose keys have no order
}

/// Between two formats, a document that only one of them has says which format that is.
void compare_documents(const Manifest& a, const Manifest& b, DiffReport& report) {
  const bool mixed = a.format != b.format;
  std::map<std::string, bool> same;
  for (const auto& [name, text] : a.documents) {
    const auto other = b.documents.find(name);
    same[name] = other != b.documents.end() && same_document(text, other->second);
  }
  for (const auto& [name, text] : b.documents) same.emplace(name, false);
  for (const auto& [name, is_same] : same) {
    if (is_same) continue;
    const bool origin = std::find(kOriginDocuments.begin(), kOriginDocuments.end(), name) !=
                            kOriginDocuments.end() ||
                        (mixed && detail::is_origin(name)) ||
                        (mixed && (!a.documents.contains(name) || !b.documents.contains(name)));
    (origin ? report.origin_documents : report.documents).push_back(name);
  }
}

std::uint64_t count_differing(const DiffReport& report) {
  return static_cast<std::uint64_t>(std::count_if(report.pairs.begin(), report.pairs.end(),
                                                  [](const Pair& pair) { return pair.differs(); }));
}

std::uint64_t compared_bytes(const DiffReport& report) {
  std::uint64_t bytes = 0;
  for (const Pair& pair : report.pairs) bytes += pair.values ? pair.a->bytes() : 0;
  return bytes;
}

std::uint64_t count_by_digest(const DiffReport& report) {
  return static_cast<std::uint64_t>(std::count_if(
      report.pairs.begin(), report.pairs.end(), [](const Pair& pair) { return pair.same_digest; }));
}

/// Another program can change a tensor and leave its digest.
bool was_rewritten(const Manifest& manifest) {
  return std::any_of(manifest.files.begin(), manifest.files.end(),
                     [](const FileEntry& file) { return file.access != Access::extents; });
}

template <class T>
std::string both(const T& a, const T& b) {
  if (a == b) return fmt::format("{}", to_string(a));
  return fmt::format("{} -> {}", to_string(a), to_string(b));
}

/// One row for each name that is not the same in both, sorted by name.
std::string table_text(const DiffReport& report) {
  std::map<std::string, std::vector<std::string>> rows;
  for (const std::string& name : report.only_in_a) rows[name] = {name, "only in A"};
  for (const std::string& name : report.only_in_b) rows[name] = {name, "only in B"};
  for (const Pair& pair : report.pairs) {
    if (!pair.differs()) continue;
    auto& row = rows[pair.a->name];
    row = {pair.a->name, both(pair.a->dtype, pair.b->dtype), both(pair.a->shape, pair.b->shape)};
    if (!pair.values) continue;
    row.push_back(fmt::format("{} of {}", pair.values->differing, element_count(pair.a->shape)));
    row.push_back(max_abs_text(pair));
    row.push_back(fmt::format("{:.6g}", pair.values->max_rel));
  }
  if (rows.empty()) return "";
  Table table;
  table.add({"tensor", "dtype", "shape", "elements", "max abs", "max rel"});
  for (auto& [name, row] : rows) table.add(std::move(row));
  return table.text();
}

Json side(const Manifest& manifest) {
  Json json = {{"path", manifest.path().string()}, {"format", manifest.format}};
  if (manifest.is_container()) {
    json["step"] = manifest.commit.step;
    json["writers"] = manifest.commit.writers;
  }
  json["tensors"] = manifest.tensors.size();
  json["bytes"] = manifest.tensor_bytes();
  json["warnings"] = manifest.warnings;
  return json;
}

/// Whether tensors of two files are to be compared by what they mean.
bool go_by_meaning(const Manifest& a, const Manifest& b) {
  if (a.format != b.format) return true;
  const TensorNames names(b.tensors);
  const bool share_names =
      std::any_of(a.tensors.begin(), a.tensors.end(),
                  [&](const TensorEntry& tensor) { return names.find(tensor.name).has_value(); });
  const auto is_plain = [](const Manifest& manifest) {
    const detail::names::ContainerNames mapping(manifest);
    std::set<std::string> seen;
    return std::all_of(
        manifest.tensors.begin(), manifest.tensors.end(),
        [&](const TensorEntry& tensor) { return seen.insert(mapping.of(tensor)).second; });
  };
  return !share_names && !a.is_container() && is_plain(a) && is_plain(b);
}

/// Finds the tensors of one file by those of another: by their names, and between two formats, or
/// files of one that have no name in common (Lightning's and other trainers'), by the names that
/// they would have in a container. Of two tensors with one name the path decides.
class OtherNames {
 public:
  OtherNames(const Manifest& from, const Manifest& in)
      : names_(in.tensors),
        from_names_(from),
        from_container_(from.is_container()),
        mixed_(go_by_meaning(from, in)) {
    by_paths_ = !mixed_ && (names_.duplicate() || TensorNames(from.tensors).duplicate());
    for (std::size_t t = 0; by_paths_ && t < in.tensors.size(); ++t) {
      by_path_.emplace(in.tensors[t].path, t);
    }
    if (mixed_ && in.is_container()) aliases_ = detail::names::aliases_in(in.documents);
    if (!mixed_ || in.is_container()) return;
    const detail::names::ContainerNames in_names(in);
    for (const TensorEntry& tensor : in.tensors) mapped_.push_back(in_names.of(tensor));
    in_container_.emplace(std::vector<std::string_view>(mapped_.begin(), mapped_.end()));
  }

  std::optional<std::size_t> find(const TensorEntry& tensor) const {
    if (by_paths_) return by_path(tensor);
    const auto position = names_.find(tensor.name);
    if (position || !mixed_) return position;
    const std::string name = from_container_ ? tensor.name : from_names_.of(tensor);
    if (in_container_) return in_container_->find(name);
    const auto alias = aliases_.find(name);
    return names_.find(alias == aliases_.end() ? name : alias->second);
  }

 private:
  std::optional<std::size_t> by_path(const TensorEntry& tensor) const {
    const auto found = by_path_.find(tensor.path);
    return found == by_path_.end() ? std::nullopt : std::optional(found->second);
  }

  TensorNames names_;
  detail::names::ContainerNames from_names_;
  bool from_container_;
  bool mixed_;
  bool by_paths_ = false;  // a name is there twice
  std::map<std::vector<PathKey>, std::size_t> by_path_;
  std::map<std::string, std::string> aliases_;
  std::vector<std::string> mapped_;
  std::optional<TensorNames> in_container_;
};

Json json_of(const Pair& pair) {
  Json json = {{"name", pair.a->name},
               {"dtype", {to_string(pair.a->dtype), to_string(pair.b->dtype)}},
               {"shape", Json::array({pair.a->shape, pair.b->shape})}};
  if (pair.values) {
    json["differing"] = pair.values->differing;
    json["elements"] = element_count(pair.a->shape);
    json["max_abs"] = max_abs(pair);
    json["max_rel"] = detail::number_to_json(pair.values->max_rel);
  }
  return json;
}

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

}  // namespace

DiffReport compare_tables(const Manifest& a, const Manifest& b) {
  DiffReport report;
  const bool digests_hold = !was_rewritten(a) && !was_rewritten(b);
  const OtherNames in_a(b, a);
  const OtherNames in_b(a, b);
  for (const TensorEntry& tensor : a.tensors) {
    const auto other = in_b.find(tensor);
    if (other) {
      Pair pair{&tensor, &b.tensors[*other], false, std::nullopt};
      const auto digest = tensor.content_digest();
      pair.same_digest = digests_hold && digest && tensor.dtype == pair.b->dtype &&
                         tensor.shape == pair.b->shape && digest == pair.b->content_digest();
      report.pairs.push_back(pair);
    } else {
      report.only_in_a.push_back(tensor.name);
    }
  }
  for (const TensorEntry& tensor : b.tensors) {
    if (!in_a.find(tensor)) report.only_in_b.push_back(tensor.name);
  }
  std::sort(report.only_in_a.begin(), report.only_in_a.end());
  std::sort(report.only_in_b.begin(), report.only_in_b.end());
  std::sort(report.pairs.begin(), report.pairs.end(),
            [](const Pair& x, const Pair& y) { return x.a->name < y.a->name; });
  compare_documents(a, b, report);
  return report;
}

bool is_equal(const DiffReport& report) {
  return report.only_in_a.empty() && report.only_in_b.empty() && report.documents.empty() &&
         std::none_of(report.pairs.begin(), report.pairs.end(),
                      [](const Pair& pair) { return pair.differs(); });
}

std::string text_of(const DiffReport& report, const Manifest& a, const Manifest& b) {
  std::string text;
  for (const Manifest* manifest : {&a, &b}) {
    for (const std::string& warning : manifest->warnings)
      text += fmt::format("warning: {}\n", warning);
  }
  text += table_text(report);
  if (!report.documents.empty())
    text += fmt::format("documents differ: {}\n", joined(report.documents));
  if (is_equal(report)) {
    return text + fmt::format("equal: {}, {} B\n", counted(report.pairs.size(), "tensor"),
                              compared_bytes(report));
  }
  return text + fmt::format("different: {} of {} tensors in both, {} only in A, {} only in B, {}\n",
                            count_differing(report), report.pairs.size(), report.only_in_a.size(),
                            report.only_in_b.size(), counted(report.documents.size(), "document"));
}

std::string json_text_of(const DiffReport& report, const Manifest& a, const Manifest& b) {
  Json tensors = Json::array();
  for (const Pair& pair : report.pairs) {
    if (pair.differs()) tensors.push_back(json_of(pair));
  }
  return to_text({{"equal", is_equal(report)},
                  {"a", side(a)},
                  {"b", side(b)},
                  {"only_in_a", report.only_in_a},
                  {"only_in_b", report.only_in_b},
                  {"tensors", std::move(tensors)},
                  {"documents", report.documents},
                  {"origin_documents", report.origin_documents},
                  {"compared",
                   {{"tensors", report.pairs.size()},
                    {"by_digest", count_by_digest(report)},
                    {"bytes", compared_bytes(report)}}}});
}

}  // namespace cairn::tool

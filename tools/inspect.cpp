#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <numeric>
#include <string_view>

#include "base/base64.hpp"
#include "base/digest.hpp"
#include "base/json_numbers.hpp"
#include "base/json_text.hpp"
#include "hash.hpp"
#include "json_out.hpp"
#include "manifest/names.hpp"
#include "output.hpp"
#include "plan/region.hpp"
#include "program.hpp"
#include "scan.hpp"
#include "sources/local.hpp"
#include "verbs.hpp"

namespace cairn::tool {
namespace {

struct Group {
  std::uint64_t tensors = 0;
  std::uint64_t bytes = 0;
};

std::string_view layout_name(Layout layout) {
  switch (layout) {
    case Layout::contiguous:
      return "contiguous";
    case Layout::chunked:
      return "chunked";
    case Layout::strided:
      return "strided";
    case Layout::pieces:
      return "pieces";
  }
  return "";
}

/// Divides at no more than `most` slashes: the last component then holds the rest.
std::vector<std::string> components_of(std::string_view name,
                                       std::size_t most = std::string_view::npos) {
  std::vector<std::string> parts;
  for (std::size_t slash = name.find('/'); slash != std::string_view::npos && parts.size() < most;
       slash = name.find('/')) {
    parts.emplace_back(name.substr(0, slash));
    name.remove_prefix(slash + 1);
  }
  parts.emplace_back(name);
  return parts;
}

/// Totals by the first component of the names that have several: model, optimizer, ranks.
std::map<std::string, Group> groups_of(const Manifest& manifest) {
  std::map<std::string, Group> groups;
  for (const TensorEntry& tensor : manifest.tensors) {
    const std::vector<std::string> parts = components_of(tensor.name, 1);
    if (parts.size() == 1) continue;
    Group& group = groups[parts.front()];
    group.tensors += 1;
    group.bytes += tensor.bytes();
  }
  return groups;
}

Json json_of(const TensorEntry& tensor, const Extent& extent) {
  Json json = {{"file", extent.file},
               {"offset", extent.offset},
               {"bytes", extent.box.elements() * item_bytes(tensor.dtype)},
               {"flat", extent.flat},
               {"start", extent.box.start},
               {"count", extent.box.count},
               {"writer", nullptr},
               {"digest", nullptr}};
  if (extent.writer >= 0) json["writer"] = extent.writer;
  if (extent.digest) json["digest"] = detail::to_hex(*extent.digest);
  return json;
}

Json json_of(const Statistics& statistics) {
  Json json = {{"nan", statistics.nan},
               {"inf", statistics.inf},
               {"min", nullptr},
               {"max", nullptr},
               {"l2", detail::number_to_json(std::sqrt(statistics.sum_squares))}};
  if (statistics.min <= statistics.max) {
    json["min"] = statistics.min;
    json["max"] = statistics.max;
  }
  return json;
}

std::string text_of(const Statistics& statistics) {
  std::string text = "no finite element";
  if (statistics.min <= statistics.max) {
    text = fmt::format("{:.4g} to {:.4g}, l2 {:.4g}", statistics.min, statistics.max,
                       std::sqrt(statistics.sum_squares));
  }
  if (statistics.nan != 0) text += fmt::format(", {} NaN", statistics.nan);
  if (statistics.inf != 0) text += fmt::format(", {} Inf", statistics.inf);
  return text;
}

/// Bytes of a tensor with filters in the file.
std::uint64_t stored_bytes(const TensorEntry& tensor) {
  std::uint64_t bytes = 0;
  for (const StoredChunk& chunk : tensor.stored) bytes += chunk.bytes;
  return bytes;
}

/// The keys that lead to the tensor in its file; in a container, the groups and the dataset.
Json path_of(const Manifest& manifest, const TensorEntry& tensor) {
  Json path = Json::array();
  for (const PathKey& key : tensor.path) {
    std::visit([&](const auto& value) { path.push_back(value); }, key);
  }
  // In PyTorch's files a tensor without a name is the root itself; elsewhere a key may be empty.
  if (!path.empty() || (tensor.name.empty() && manifest.format == "torch")) return path;
  if (manifest.is_container()) return components_of(tensor.name);
  return Json::array({tensor.name});
}

Json json_of(const Manifest& manifest, const TensorEntry& tensor) {
  Json extents = Json::array();
  for (const Extent& extent : tensor.extents) extents.push_back(json_of(tensor, extent));
  Json json = {{"name", tensor.name},
               {"path", path_of(manifest, tensor)},
               {"dtype", to_string(tensor.dtype)},
               {"shape", tensor.shape},
               {"bytes", tensor.bytes()},
               {"placement", to_string(tensor.placement)},
               {"layout", layout_name(tensor.layout)},
               {"crc64", nullptr}};
  if (manifest.is_container()) json["dataset"] = "/" + tensor.name;
  if (const auto digest = tensor.content_digest()) json["crc64"] = detail::to_hex(*digest);
  if (tensor.layout == Layout::chunked) json["chunk"] = tensor.chunk;
  if (tensor.layout == Layout::strided) json["strides"] = tensor.strides;
  if (tensor.filters != 0) json["stored_bytes"] = stored_bytes(tensor);
  if (tensor.statistics) json["statistics"] = json_of(*tensor.statistics);
  json["extents"] = std::move(extents);
  return json;
}

/// The lists that readers of formats make of the values beside the tensors.
constexpr std::array<std::string_view, 3> kValues{"objects", "opaque", "aliases"};
constexpr std::string_view kArrays = "arrays";

bool is_values(std::string_view document) {
  return document == kArrays ||
         std::find(kValues.begin(), kValues.end(), document) != kValues.end();
}

/// A list that a reader of a format made may be long.
void add_list(JsonOut& out, const std::string& name, std::string_view text) {
  out.open(name, '[');
  for_each_element(text, [&](const Json& value) {
    if (name != kArrays) return out.add(value);
    const auto bytes = detail::bytes_of_base64(value.at("base64").get<std::string>());
    out.add({{"path", value.at("path")},
             {"dtype", value.at("dtype")},
             {"shape", value.at("shape")},
             {"sha256", sha256_of(bytes)}});
  });
  out.close();
}

void add_documents(JsonOut& out, const Manifest& manifest) {
  out.open("documents", '{');
  for (const auto& [name, text] : manifest.documents) {
    if (!manifest.is_container() && is_values(name)) continue;
    if (!manifest.is_container() && name == "containers") {
      add_list(out, name, text);
      continue;
    }
    const Json document = detail::parse_ordered(text);
    out.add(name, document.is_discarded() ? Json(text) : document);
  }
  out.close();
}

/// The values beside the tensors that a format lists, each beside its path in the file. Arrays are
/// told by their hash.
void add_values(JsonOut& out, const Manifest& manifest) {
  for (const auto& [name, text] : manifest.documents) {
    if (is_values(name)) add_list(out, name, text);
  }
}

Json files_of(const Manifest& manifest) {
  Json files = Json::array();
  for (const FileEntry& file : manifest.files) {
    files.push_back({{"path", file.path.string()}, {"bytes", file.bytes}});
  }
  return files;
}

/// Only a container has one.
void add_commit(JsonOut& out, const CommitInfo& commit) {
  out.add("format_version", commit.format_version);
  out.add("committed", true);
  out.add("step", commit.step);
  out.add("writers", commit.writers);
  out.add("committed_at", commit.committed_at);
  out.add("structure", commit.structure);
  out.add("library", commit.library_version);
}

void add_tensors(JsonOut& out, const Manifest& manifest, const std::vector<std::string>& hashes) {
  out.open("tensors", '[');
  for (std::size_t t = 0; t < manifest.tensors.size(); ++t) {
    Json tensor = json_of(manifest, manifest.tensors[t]);
    if (!hashes.empty()) tensor["sha256"] = hashes[t];
    out.add(tensor);
  }
  out.close();
}

void add_all(JsonOut& out, const Manifest& manifest, const std::vector<std::string>& hashes) {
  out.open('{');
  out.add("path", manifest.path().string());
  out.add("format", manifest.format);
  if (manifest.is_container()) add_commit(out, manifest.commit);
  out.add("bytes", manifest.tensor_bytes());
  out.add("file_bytes", manifest.file_bytes());
  out.add("files", files_of(manifest));
  add_documents(out, manifest);
  if (!manifest.is_container()) add_values(out, manifest);
  out.add("warnings", manifest.warnings);
  out.open("groups", '{');
  for (const auto& [name, group] : groups_of(manifest)) {
    out.add(name, {{"tensors", group.tensors}, {"bytes", group.bytes}});
  }
  out.close();
  add_tensors(out, manifest, hashes);
  out.close();
}

std::string size_text(const Manifest& manifest) {
  const std::string files =
      manifest.files.size() == 1 ? "a file" : counted(manifest.files.size(), "file");
  return fmt::format("{} of data in {} of {}", human_bytes(manifest.tensor_bytes()), files,
                     human_bytes(manifest.file_bytes()));
}

std::string header_text(const Manifest& manifest) {
  Table header;
  if (manifest.is_container()) {
    const CommitInfo& commit = manifest.commit;
    header.add({"format", fmt::format("{}, version {}", manifest.format, commit.format_version)});
    header.add({"status", fmt::format("committed {} by cairn {}", commit.committed_at,
                                      commit.library_version)});
    header.add({"step", fmt::format("{}", commit.step)});
    header.add({"writers", counted(static_cast<std::uint64_t>(commit.writers), "rank")});
    header.add({"structure", commit.structure});
  } else {
    header.add({"format", manifest.format});
  }
  header.add({"size", size_text(manifest)});
  std::string text = manifest.path().string() + "\n" + header.text("  ");
  for (const std::string& warning : manifest.warnings) {
    text += fmt::format("  warning: {}\n", warning);
  }
  return text;
}

std::string documents_text(const Manifest& manifest) {
  constexpr std::size_t kShown = 100;
  Table table;
  for (const auto& [name, document] : manifest.documents) {
    const bool all = document.size() <= kShown && document.find('\n') == std::string::npos;
    table.add({name, all ? document : human_bytes(document.size())});
  }
  return table.empty() ? "" : "documents\n" + table.text("  ");
}

/// Where a container refers to another one for a tensor.
std::string elsewhere(const Manifest& manifest, const TensorEntry& tensor) {
  const std::uint32_t file = detail::file_of(tensor);
  if (!manifest.is_container() || file == 0) return {};
  return "in " + manifest.files.at(file).path.filename().string();
}

/// The tensors as a tree of the components of their names. A name of many components, each of which
/// would be indented further, goes on in one line.
std::string tree_text(const Manifest& manifest, const std::vector<std::string>& hashes) {
  constexpr std::size_t kDeepest = 20;
  const auto groups = groups_of(manifest);
  std::vector<std::size_t> order(manifest.tensors.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return detail::names::natural_less(manifest.tensors[a].name, manifest.tensors[b].name);
  });
  Table table;
  std::vector<std::string> open;  // the groups around the last tensor
  for (const std::size_t t : order) {
    const TensorEntry& tensor = manifest.tensors[t];
    const std::vector<std::string> parts = components_of(tensor.name, kDeepest);
    std::size_t common = 0;
    while (common < open.size() && common + 1 < parts.size() && open[common] == parts[common])
      ++common;
    for (std::size_t depth = common; depth + 1 < parts.size(); ++depth) {
      std::vector<std::string> row{std::string(2 * depth, ' ') + parts[depth] + "/"};
      if (depth == 0) {
        const Group& group = groups.at(parts[0]);
        row.push_back(counted(group.tensors, "tensor") + ", " + human_bytes(group.bytes));
      }
      table.add(std::move(row));
    }
    open.assign(parts.begin(), parts.end() - 1);
    table.add({std::string(2 * open.size(), ' ') + parts.back(),
               fmt::format("{} {}", to_string(tensor.dtype), to_string(tensor.shape)),
               human_bytes(tensor.bytes()), std::string(to_string(tensor.placement)),
               std::string(layout_name(tensor.layout)), counted(tensor.extents.size(), "extent"),
               tensor.statistics ? text_of(*tensor.statistics) : "",
               hashes.empty() ? "" : hashes[t], elsewhere(manifest, tensor)});
  }
  return counted(manifest.tensors.size(), "tensor") + "\n" + table.text("  ");
}

}  // namespace

int inspect(const Comm& comm, const InspectOptions& options) {
  const Manifest manifest = open_checkpoint(comm, detail::resolve_local(comm, options.file));
  std::vector<std::string> hashes;
  if (!options.hash.empty()) {
    require_undamaged(comm, manifest);
    hashes = sha256_of_tensors(comm, manifest);
  }
  if (options.json) {
    print_json(comm, [&](JsonOut& out) { add_all(out, manifest, hashes); });
    return kFine;
  }
  print(comm, [&] {
    return header_text(manifest) + documents_text(manifest) + tree_text(manifest, hashes);
  });
  return kFine;
}

}  // namespace cairn::tool

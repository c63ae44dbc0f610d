#include "checkpoint/convert.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <initializer_list>
#include <string_view>

#include "base/throw.hpp"
#include "convert_options.hpp"
#include "manifest/dtype_names.hpp"
#include "output.hpp"
#include "program.hpp"
#include "sources/local.hpp"
#include "verbs.hpp"

namespace cairn::tool {
namespace {

using detail::fail;
using detail::TargetFormat;

std::filesystem::path target_of(const ConvertOptions& options) {
  const std::filesystem::path out = options.out;
  if (options.shard_bytes == 0 || out.extension() == ".json") return out;
  return out / "model.safetensors.index.json";
}

std::optional<DType> dtype_of(const std::string& name) {
  if (name.empty()) return std::nullopt;
  const auto dtype = detail::dtype_from_name(name);
  for (const DType possible : {DType::f64, DType::f32, DType::f16, DType::bf16}) {
    if (dtype == possible) return dtype;
  }
  fail(Errc::usage, "--dtype '{}': f64, f32, f16 and bf16 are possible", name);
}

std::pair<std::string, std::string> renaming(const std::string& text) {
  const std::size_t middle = text.find('=');
  if (middle == std::string::npos || middle == 0) {
    fail(Errc::usage, "--rename '{}' is not FROM=TO", text);
  }
  return {text.substr(0, middle), text.substr(middle + 1)};
}

detail::ConvertOptions options_of(const Comm& comm, const ConvertOptions& options) {
  detail::ConvertOptions convert;
  convert.to = target_format(options.out, options.to, options.shard_bytes != 0);
  if (convert.to != TargetFormat::safetensors && options.shard_bytes != 0) {
    fail(Errc::usage, "this format has one file: --shard-size is for safetensors");
  }
  convert.overwrite = options.force;
  convert.weights_only = options.weights_only;
  convert.select.regex = options.select;
  for (const std::string& text : options.rename) convert.rename.push_back(renaming(text));
  convert.dtype = dtype_of(options.dtype);
  convert.memory_bytes = options.memory_bytes;
  convert.shard_bytes = options.shard_bytes;
  if (comm.is_root()) convert.progress = progress_bar();
  return convert;
}

std::string text_of(const ConvertOptions& options, const detail::ConvertResult& result,
                    const std::vector<std::string>& warnings) {
  std::string text;
  for (const std::string& warning : warnings) text += fmt::format("warning: {}\n", warning);
  for (const detail::LeftOut& left : result.left_out) {
    text += fmt::format("left out: '{}': {}\n", left.name, left.why);
  }
  text += fmt::format("{}: {}, {}", options.out, counted(result.tensors, "tensor"),
                      human_bytes(result.bytes));
  if (!result.casts.empty()) text += fmt::format(", {} converted", result.casts.size());
  return text + "\n";
}

}  // namespace

TargetFormat target_format(const std::string& out, const std::string& to, bool has_shards) {
  const std::string end = std::filesystem::path(out).extension().string();
  const auto is = [&](std::string_view word, std::initializer_list<std::string_view> ends) {
    return to == word || (to.empty() && std::find(ends.begin(), ends.end(), end) != ends.end());
  };
  if (is("cairn", {".h5"})) return TargetFormat::cairn;
  if (is("safetensors", {".safetensors"})) return TargetFormat::safetensors;
  if (is("torch", {".pt", ".pth", ".bin"})) return TargetFormat::torch;
  if (is("lightning", {".ckpt"})) return TargetFormat::lightning;
  if (to.empty() && has_shards) return TargetFormat::safetensors;
  fail(Errc::usage,
       "the name of '{}' does not tell a format; give --to cairn, safetensors, torch or lightning",
       out);
}

Json json_of(const std::string& out, const detail::ConvertResult& result) {
  Json casts = Json::array();
  for (const TensorCast& cast : result.casts) {
    casts.push_back(
        {{"name", cast.name}, {"from", to_string(cast.from)}, {"to", to_string(cast.to)}});
  }
  Json left_out = Json::array();
  for (const detail::LeftOut& left : result.left_out) {
    left_out.push_back({{"name", left.name}, {"why", left.why}});
  }
  return {{"path", out},
          {"tensors", result.tensors},
          {"bytes", result.bytes},
          {"casts", std::move(casts)},
          {"left_out", std::move(left_out)}};
}

int convert(const Comm& comm, const ConvertOptions& options) {
  const Manifest source = open_checkpoint(comm, detail::resolve_local(comm, options.in));
  detail::ConvertOptions convert;
  agree(comm, "convert", [&] { convert = options_of(comm, options); });
  const auto result = detail::convert_checkpoint(comm, source, target_of(options), convert);
  print(comm, [&] {
    if (!options.json) return text_of(options, result, source.warnings);
    Json json = json_of(options.out, result);
    json["warnings"] = source.warnings;
    return to_text(json);
  });
  return kFine;
}

}  // namespace cairn::tool

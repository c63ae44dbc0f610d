#include <fmt/format.h>

#include <optional>
#include <string>
#include <vector>

#include "base/throw.hpp"
#include "checkpoint/usable.hpp"
#include "manifest/names.hpp"
#include "output.hpp"
#include "program.hpp"
#include "scan.hpp"
#include "sources/local.hpp"
#include "verbs.hpp"

namespace cairn::tool {
namespace {

Json json_of(const std::string& path, const VerifyReport& report,
             const std::vector<std::string>& warnings) {
  Json defects = Json::array();
  for (const Defect& defect : report.defects) {
    Json entry = {{"tensor", defect.tensor}};
    if (!defect.tensor.empty()) {
      entry["start"] = defect.box.start;
      entry["count"] = defect.box.count;
      entry["writer"] = defect.writer;
    }
    entry["text"] = defect.text;
    defects.push_back(std::move(entry));
  }
  return {{"path", path},
          {"ok", report.defects.empty()},
          {"tensors", report.tensors},
          {"unchecked", report.unchecked},
          {"extents", report.extents},
          {"bytes", report.bytes},
          {"defects", std::move(defects)},
          {"warnings", warnings}};
}

std::string text_of(const std::string& path, const VerifyReport& report,
                    const std::vector<std::string>& warnings) {
  std::string text;
  for (const std::string& warning : warnings) text += fmt::format("warning: {}\n", warning);
  for (const Defect& defect : report.defects) text += fmt::format("damaged: {}\n", defect.text);
  if (!report.defects.empty()) {
    return text + fmt::format("{} in '{}'; use an older checkpoint\n",
                              counted(report.defects.size(), "defect"), path);
  }
  text += fmt::format("ok: {}, {}, {} B\n", counted(report.tensors, "tensor"),
                      counted(report.extents, "extent"), report.bytes);
  if (report.unchecked == 0) return text;
  return text + fmt::format(
                    "not checked: the values of {}, of which the format records no digest; "
                    "names, types, shapes and places are in order\n",
                    counted(report.unchecked, "tensor"));
}

/// Damage outside the tensors' data keeps a checkpoint from being opened; it is a defect like any
/// other.
VerifyReport check(const Comm& comm, const std::string& path, std::vector<std::string>& warnings) {
  std::optional<Manifest> manifest;
  try {
    manifest = open_checkpoint(comm, path);
  } catch (const Error& error) {
    // Agreed, so that every rank takes the same way.
    if (error.code() != Errc::corrupt || error.rank() == Error::kLocal) throw;
    VerifyReport report;
    report.defects.push_back({"", {}, -1, error.what(), {}});
    return report;
  }
  warnings = manifest->warnings;
  return verify_tensors(comm, *manifest);
}

/// Notes the result beside the checkpoint, for loads and for what removes checkpoints. The files
/// that were marked as bad, on rank 0.
std::vector<std::string> note(const Comm& comm, const std::filesystem::path& path,
                              const VerifyReport& report) {
  std::vector<std::string> marked;
  agree(comm, "verify: mark", [&] {
    if (!comm.is_root()) return;
    // The name of a link is not that of the checkpoint.
    const auto file = std::filesystem::canonical(path);
    if (!detail::names::parse_checkpoint_file(file.filename().string())) {
      detail::fail(Errc::usage,
                   "'{}' is no checkpoint of a run (step-*.h5); --mark is for those alone",
                   path.string());
    }
    if (!report.defects.empty()) {
      for (const auto& bad : detail::mark_damage(file, report.defects)) {
        marked.push_back(bad.string());
      }
    } else if (report.unchecked == 0) {
      detail::mark_verified(file);
    }
  });
  return marked;
}

}  // namespace

int verify(const Comm& comm, const VerifyOptions& options) {
  const std::filesystem::path path = detail::resolve_local(comm, options.file);
  std::vector<std::string> warnings;
  const VerifyReport report = check(comm, path, warnings);
  std::vector<std::string> marked;
  if (options.mark) marked = note(comm, path, report);
  print(comm, [&] {
    if (options.json) {
      Json json = json_of(path, report, warnings);
      if (options.mark) json["marked"] = marked;
      return to_text(json);
    }
    std::string text = text_of(path, report, warnings);
    for (const std::string& bad : marked) text += fmt::format("marked as bad: '{}'\n", bad);
    return text;
  });
  return report.defects.empty() ? kFine : kDifferent;
}

}  // namespace cairn::tool

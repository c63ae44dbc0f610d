#include <fmt/format.h>

#include "output.hpp"
#include "pipeline/document.hpp"
#include "pipeline/rules.hpp"
#include "verbs.hpp"

namespace cairn::tool {
namespace {

using detail::Value;

/// What another program may have registered is told on stderr, as it can't be checked here; so is
/// what nothing acts on.
Value read(const std::string& file) {
  const auto warn = [](const std::string& text) {
    fmt::print(stderr, "cairn: warning: {}\n", text);
  };
  std::vector<std::string> strangers;
  Value document = detail::checked_document(detail::read_configuration(file), file, &strangers);
  for (const std::string& text : strangers) warn(text);
  const Config config = detail::config_of(document, file);
  for (const std::string& text : detail::idle_keys(config.save)) {
    warn(fmt::format("{}: {}", file, text));
  }
  return document;
}

std::string shown(const std::string& file, bool json) {
  const Value document = read(file);
  const auto block = detail::resolved_block(&document, detail::kDocument);
  return json ? to_text(block) : detail::to_yaml(block);
}

/// One file that is wrong is the error itself; among several, each gets its line.
std::string checked(const std::vector<std::string>& files, bool json, bool& wrong) {
  Json results = Json::array();
  std::string text;
  for (const std::string& file : files) {
    Json result = {{"path", file}, {"ok", true}};
    try {
      read(file);
      text += fmt::format("ok: {}\n", file);
    } catch (const Error& error) {
      if (files.size() == 1) throw;
      wrong = true;
      text += fmt::format("wrong: {}\n", error.what());
      result["ok"] = false;
      result["error"] = {{"code", to_string(error.code())}, {"message", error.what()}};
    }
    results.push_back(std::move(result));
  }
  if (!json) return text;
  return to_text(files.size() == 1 ? results[0] : Json{{"ok", !wrong}, {"files", results}});
}

}  // namespace

int config(const Comm& comm, const ConfigOptions& options) {
  std::uint64_t wrong[1] = {0};
  // Rank 0 reads the files; the others have nothing to look at.
  print(comm, [&] {
    bool any = false;
    std::string text = options.action == ConfigAction::schema ? to_text(detail::json_schema())
                       : options.action == ConfigAction::show
                           ? shown(options.files.front(), options.json)
                           : checked(options.files, options.json, any);
    wrong[0] = any ? 1 : 0;
    return text;
  });
  comm.all_reduce_max(std::span<std::uint64_t>(wrong));
  return wrong[0] == 0 ? kFine : kFailed;
}

}  // namespace cairn::tool

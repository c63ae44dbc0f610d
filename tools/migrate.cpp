#include <fmt/format.h>
#include <fmt/ranges.h>

#include <filesystem>

#include "base/throw.hpp"
#include "convert_options.hpp"
#include "output.hpp"
#include "pipeline/migrations/run.hpp"
#include "program.hpp"
#include "sources/local.hpp"
#include "verbs.hpp"

namespace cairn::tool {
namespace {

using detail::fail;
using detail::migrations::MigrateResult;

void check(const MigrateOptions& options) {
  if (!options.rollback && options.steps.empty()) {
    fail(Errc::usage, "name the directory of the migrations with --steps");
  }
  if (options.out.empty() && !options.dry_run) {
    fail(Errc::usage, "name the new file with -o; --dry-run only tells what would be done");
  }
}

detail::migrations::MigrateOptions options_of(const Comm& comm, const MigrateOptions& options) {
  check(options);
  detail::migrations::MigrateOptions migrate;
  migrate.steps = options.steps;
  migrate.to = options.to;
  migrate.rollback = options.rollback;
  migrate.dry_run = options.dry_run;
  if (!options.out.empty())
    migrate.convert.to = target_format(options.out, "", /*has_shards=*/false);
  migrate.convert.overwrite = options.force;
  migrate.convert.memory_bytes = options.memory_bytes;
  if (comm.is_root()) migrate.convert.progress = progress_bar();
  return migrate;
}

std::string text_of(const MigrateOptions& options, const MigrateResult& result) {
  std::string text;
  for (const std::string& warning : result.warnings) text += fmt::format("warning: {}\n", warning);
  for (const Json& migration : result.migrations) {
    text += fmt::format("{} ({}){}\n", migration.at("name").get<std::string>(),
                        migration.at("version").get<std::string>(),
                        options.rollback ? ": taken back" : "");
    for (const Json& step : migration.value("steps", Json::array())) {
      const auto changed = step.at("changed").get<std::uint64_t>();
      const auto examples = step.at("examples").get<std::vector<std::string>>();
      text += fmt::format("  {}: {}{}{}{}\n", step.at("type").get<std::string>(), changed,
                          examples.empty() ? "" : ": ", fmt::join(examples, "; "),
                          changed > examples.size() ? "; ..." : "");
      if (!step.at("reversible").get<bool>()) text += "    can't be taken back\n";
    }
  }
  if (result.migrations.empty()) return text + fmt::format("{}: nothing to do\n", options.file);
  if (options.dry_run) return text + fmt::format("{}: nothing was written\n", options.file);
  for (const detail::LeftOut& left : result.written.left_out) {
    text += fmt::format("left out: '{}': {}\n", left.name, left.why);
  }
  return text + fmt::format("{}: {}, {}\n", options.out, counted(result.written.tensors, "tensor"),
                            human_bytes(result.written.bytes));
}

Json json_of(const MigrateOptions& options, const MigrateResult& result) {
  const bool written = !options.dry_run && !result.migrations.empty();
  Json json{{"path", options.file},
            {"written", written},
            {options.rollback ? "taken_back" : "applied", result.migrations},
            {"warnings", result.warnings}};
  if (written) json["result"] = tool::json_of(options.out, result.written);
  return json;
}

}  // namespace

int migrate(const Comm& comm, const MigrateOptions& options) {
  const Manifest source = open_checkpoint(comm, detail::resolve_local(comm, options.file));
  detail::migrations::MigrateOptions migrate;
  agree(comm, "migrate", [&] { migrate = options_of(comm, options); });
  const auto result = migrate_checkpoint(comm, source, options.out, migrate);
  print(comm, [&] {
    return options.json ? to_text(json_of(options, result)) : text_of(options, result);
  });
  return kFine;
}

}  // namespace cairn::tool

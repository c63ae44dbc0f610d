#include <fmt/format.h>

#include <cstdio>
#include <span>
#include <system_error>
#include <utility>

#include "base/throw.hpp"
#include "cairn/legacy_config.hpp"
#include "manifest/names.hpp"
#include "os/file.hpp"
#include "output.hpp"
#include "verbs.hpp"

namespace cairn::tool {
namespace {

namespace fs = std::filesystem;

std::string notes_text(const std::vector<MigrationNote>& notes, const std::string& file,
                       std::string_view kind) {
  std::string text;
  for (const MigrationNote& note : notes) {
    text +=
        fmt::format("{}{}: {}: {} [{}]\n", file, note.line > 0 ? fmt::format(":{}", note.line) : "",
                    kind, note.message, note.code);
  }
  return text;
}

/// One line for each key, as a person reads it.
std::string summary(const ConfigMigration& migration, const std::string& file) {
  std::string text = notes_text(migration.errors, file, "error");
  text += notes_text(migration.warnings, file, "warning");
  for (const MovedKey& moved : migration.moved) {
    text += fmt::format("{}:{}: {} -> {}: {}\n", file, moved.line, moved.key,
                        moved.to.empty() ? "(left out)" : moved.to, moved.why);
  }
  if (!migration.ok()) return text + fmt::format("{}: not migrated\n", file);
  return text + fmt::format("{}: {}\n", file,
                            !migration.changed ? "nothing to migrate"
                                               : fmt::format("era {}", migration.era));
}

/// Writes the whole file or none: another one of that name stays until the new one is complete.
void write(const MigrateConfigOptions& options, const std::string& text) {
  const fs::path target = options.output;
  std::error_code ignored;
  if (!options.force && fs::exists(fs::symlink_status(target, ignored))) {
    detail::fail(Errc::usage, "'{}' exists; give --force to replace it", options.output);
  }
  if (fs::is_directory(target, ignored)) {
    detail::fail(Errc::usage, "'{}' is a directory; name a file", options.output);
  }
  const fs::path partial = detail::names::partial_file(target);
  try {
    detail::File file = detail::File::create(partial);
    file.write_at(0, std::as_bytes(std::span(text)), "migrate_config.write");
    file.sync();
    file.close();
    detail::replace_file(partial, target);
  } catch (const Error&) {
    detail::remove_quietly(partial);
    throw;
  }
  detail::sync_directory(target.has_parent_path() ? target.parent_path() : fs::path("."));
}

std::string json_text(const ConfigMigration& migration, const MigrateConfigOptions& options) {
  Json json = {{"path", options.file}};
  json.update(Json::parse(migration.report));
  if (!migration.ok()) {
    const MigrationNote& first = migration.errors.front();
    json["error"] = {{"code", "usage"},
                     {"message", fmt::format("{}: {}", options.file, first.message)},
                     {"rank", 0}};
  } else if (options.output.empty() && !options.check) {
    json["text"] = migration.text;
  }
  return to_text(json);
}

/// What goes to standard output, and the exit code.
std::pair<std::string, int> carry_out(const MigrateConfigOptions& options) {
  const auto migration = LegacyConfigMigrator(options.from_version).migrate_file(options.file);
  const bool writes = migration.ok() && !options.check && !options.output.empty();
  if (writes) write(options, migration.text);
  const int code = !migration.ok()                      ? kFailed
                   : options.check && migration.changed ? kDifferent
                                                        : kFine;
  if (options.json) return {json_text(migration, options), code};
  const std::string told = visible(summary(migration, options.file));
  if (options.check || writes) return {told, code};
  std::fputs(told.c_str(), stderr);
  return {migration.ok() ? migration.text : "", code};
}

}  // namespace

int migrate_config(const Comm& comm, const MigrateConfigOptions& options) {
  std::uint64_t code[1] = {0};
  agree(comm, "migrate-config", [&] {
    if (!comm.is_root()) return;
    const auto [text, result] = carry_out(options);
    code[0] = static_cast<std::uint64_t>(result);
    if (!write_out(text)) detail::fail(Errc::io, "{}", kCannotPrint);
  });
  comm.all_reduce_max(std::span<std::uint64_t>(code));
  return static_cast<int>(code[0]);
}

}  // namespace cairn::tool

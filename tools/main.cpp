// cairn: looks at checkpoints and converts them. Starts plain or under mpirun; only rank 0 prints.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <string_view>

#include "cairn/version.hpp"
#include "program.hpp"
#include "run_options.hpp"
#include "verbs.hpp"

namespace {

using namespace cairn::tool;

constexpr const char* kFooter =
    "A FILE is a container of cairn's, a safetensors file, an index of such (*.index.json), or a\n"
    "file of PyTorch's (.pt, .pth, .ckpt, .bin). A directory of PyTorch's distributed\n"
    "checkpoints, of DeepSpeed's or of Megatron's is one, too. Any other directory stands for the\n"
    "newest committed checkpoint of a run, or for the model in it.\n"
    "Exit codes: 0 fine or equal, 1 a difference or a defect was found, 2 usage or error.\n"
    "Under mpirun the ranks share the work.";

constexpr const char* kExitFooter = "Exit codes: 0 fine, 2 usage or error.";

constexpr const char* kConvertFooter =
    "OUT appears when it is whole and was read back. Below 'model/' a container holds what other\n"
    "formats hold at their top; the rest of it keeps its names, and comes back from a safetensors\n"
    "file that cairn wrote. The state of single ranks, under 'ranks/', is left out.\n"
    "Exit codes: 0 fine, 2 usage or error. Under mpirun the ranks share the work.";
constexpr const char* kFlattenFooter =
    "A checkpoint saved with save.delta takes what had not changed from older files beside it.\n"
    "OUT is the same checkpoint, state of single ranks included, in one file. Digests are checked\n"
    "first; OUT appears when it is whole and was read back.\n"
    "Exit codes: 0 fine, 2 usage or error. Under mpirun the ranks share the work.";
constexpr const char* kMigrateFooter =
    "DIR holds the migrations, NUMBER_WORDS.yaml, in the order of their numbers; the file says "
    "which\n"
    "it has behind it (docs/migrations.md). What it lacks is done, in a new file; the old one "
    "stays\n"
    "as it is. Where nothing is to do, nothing is written. --rollback takes the last one back, or "
    "all\n"
    "beyond --to; a step that has no way back is an error that names it.\n"
    "Exit codes: 0 fine, or nothing to do; 2 usage or error. Under mpirun the ranks share the "
    "work.";
constexpr const char* kMigrateConfigFooter =
    "The new text is the old one, byte for byte, but for the keys that move; what moved, and why,\n"
    "stands in comments and, with warnings, on standard error (docs/migration.md).\n"
    "Exit codes: 0 fine, or nothing to migrate; 1 with --check: there is something to migrate;\n"
    "2 usage or error.";

constexpr const char* kDiffFooter =
    "Values of equal dtype differ when their bits differ: a NaN equals itself, +0 differs from "
    "-0.\n"
    "Values of different dtypes differ when their numbers do; two NaNs are then equal.\n"
    "max abs is the largest |a - b| (exact for integers, in double for all others, nan when a NaN\n"
    "meets anything else), max rel the largest |a - b| / max(|a|, |b|).\n"
    "The state of single ranks, under 'ranks/', counts like any other tensor.\n"
    "Tensors whose digests are recorded as equal are not read. What is read is checked against\n"
    "its digests first: damaged data is an error, not a difference.\n"
    "The documents 'topology', 'provenance', 'index' and 'shards' tell how files were written:\n"
    "where only they differ, and where only the step differs, the files are equal. So are a\n"
    "container and a file of another format whose tensors are alike: 'model/x' of the container\n"
    "is compared with 'x', and documents\n"
    "that only one of two formats can have do not count.";

CLI::App* add_convert_verb(CLI::App& app, ConvertOptions& options, bool& json) {
  CLI::App* verb =
      add_verb(app, "convert", "Write a checkpoint in another format", kConvertFooter, json);
  verb->add_option("IN", options.in, "Checkpoint, or a directory")->required();
  verb->add_option("OUT", options.out, "File to write")->required();
  verb->add_option("--to", options.to,
                   "Format of OUT; by default its name tells: cairn (.h5), safetensors "
                   "(.safetensors), torch (.pt, .pth, .bin) or lightning (.ckpt)")
      ->check(CLI::IsMember({"cairn", "safetensors", "torch", "lightning"}));
  verb->add_option("--select", options.select, "Only tensors in whose name this regex is found");
  verb->add_option("--rename", options.rename,
                   "FROM=TO: names of IN that start with FROM get TO in its place");
  verb->add_option("--dtype", options.dtype, "Convert floats to this: f64, f32, f16 or bf16");
  verb->add_flag("--weights-only", options.weights_only,
                 "Only the model's tensors, and no documents");
  verb->add_option("--memory", options.memory_bytes,
                   "Memory of each rank for bytes on their way, such as 512M (default: 256M)")
      ->transform(CLI::AsSizeValue(/*kb_is_1000=*/false));
  verb->add_option("--shard-size", options.shard_bytes,
                   "Divide safetensors into files of this size, such as 5GB; OUT is then their "
                   "directory, or its *.index.json")
      ->transform(CLI::AsSizeValue(/*kb_is_1000=*/false));
  verb->add_flag("--force", options.force, "Replace OUT where it exists");
  return verb;
}

CLI::App* add_flatten_verb(CLI::App& app, FlattenOptions& options, bool& json) {
  CLI::App* verb =
      add_verb(app, "flatten", "Make a container that needs no other file", kFlattenFooter, json);
  verb->add_option("IN", options.in, "Container, or a directory")->required();
  verb->add_option("OUT", options.out, "File to write")->required();
  verb->add_option("--memory", options.memory_bytes,
                   "Memory of each rank for bytes on their way, such as 512M (default: 256M)")
      ->transform(CLI::AsSizeValue(/*kb_is_1000=*/false));
  verb->add_flag("--force", options.force, "Replace OUT where it exists");
  return verb;
}

CLI::App* add_config_verb(CLI::App& app, ConfigOptions& options, bool& json) {
  CLI::App* verb = add_verb(app, "config", "Look at a configuration file", kExitFooter, json);
  verb->require_subcommand(1);
  const auto add = [&](const char* name, const char* what, ConfigAction action) {
    CLI::App* sub = verb->add_subcommand(name, what);
    sub->add_flag("--json", json, "Print JSON, errors included");
    sub->callback([&options, action] { options.action = action; });
    return sub;
  };
  add("check", "Tell whether the file is right", ConfigAction::check)
      ->add_option("FILE", options.files, "YAML files")
      ->required();
  add("show", "Print it with interpolations and defaults filled in, secrets masked",
      ConfigAction::show)
      ->add_option("FILE", options.files, "YAML file")
      ->required()
      ->expected(1);
  add("schema", "Print the JSON schema of configuration files", ConfigAction::schema);
  return verb;
}

CLI::App* add_migrate_verb(CLI::App& app, MigrateOptions& options, bool& json) {
  CLI::App* verb = add_verb(app, "migrate", "Bring a checkpoint's names and documents up to date",
                            kMigrateFooter, json);
  verb->add_option("FILE", options.file, "Checkpoint, or a directory")->required();
  verb->add_option("-o,--output", options.out,
                   "File to write; its name tells its format, as with convert");
  verb->add_option("--steps", options.steps, "Directory of the migrations");
  verb->add_option("--to", options.to, "Only up to this version, or this migration");
  verb->add_flag("--rollback", options.rollback, "Take migrations back");
  verb->add_flag("--dry-run", options.dry_run, "Only tell what would be done");
  verb->add_option("--memory", options.memory_bytes,
                   "Memory of each rank for bytes on their way, such as 512M (default: 256M)")
      ->transform(CLI::AsSizeValue(/*kb_is_1000=*/false));
  verb->add_flag("--force", options.force, "Replace the output if it exists");
  return verb;
}

CLI::App* add_migrate_config_verb(CLI::App& app, MigrateConfigOptions& options, bool& json) {
  CLI::App* verb =
      add_verb(app, "migrate-config", "Move a legacy training configuration to cairn's keys",
               kMigrateConfigFooter, json);
  verb->add_option("OLD", options.file, "YAML file")->required();
  auto* output =
      verb->add_option("-o,--output", options.output, "Write here; without it, print the new text");
  verb->add_flag("--check", options.check, "Only tell whether there is anything to migrate")
      ->excludes(output);
  verb->add_flag("--force", options.force, "Replace the output if it exists")->needs(output);
  verb->add_option("--from-version", options.from_version,
                   "The release that the file was written for (0.7), or its era (E0 to E3); by "
                   "default it is deduced");
  return verb;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Looks at sharded checkpoints, and converts them.", "cairn"};
  app.set_version_flag("--version", std::string("cairn ") + CAIRN_VERSION_STRING);
  app.require_subcommand(0, 1);  // a word that is no verb is told as such, not as a missing verb
  app.footer(kFooter);
  bool json = false;

  InspectOptions inspecting;
  CLI::App* inspect_verb = add_verb(
      app, "inspect", "Show what is in a checkpoint: header, tensors, sizes", kFooter, json);
  inspect_verb->add_option("FILE", inspecting.file, "Checkpoint, or a directory")->required();
  inspect_verb
      ->add_option(
          "--hash", inspecting.hash,
          "Add a hash of each tensor's row-major little-endian bytes, after checking digests")
      ->check(CLI::IsMember({"sha256"}));

  DiffOptions comparing;
  CLI::App* diff_verb =
      add_verb(app, "diff", "Compare two checkpoints: names, shapes, dtypes, values",
               std::string(kDiffFooter) + "\n" + kFooter, json);
  diff_verb->add_option("A", comparing.a, "Checkpoint, or a directory")->required();
  diff_verb->add_option("B", comparing.b, "Checkpoint, or a directory")->required();

  VerifyOptions verifying;
  CLI::App* verify_verb =
      add_verb(app, "verify", "Check the digests of everything in a checkpoint", kFooter, json);
  verify_verb->add_option("FILE", verifying.file, "Checkpoint, or a directory")->required();
  verify_verb->add_flag("--mark", verifying.mark,
                        "Note the result beside a run's checkpoint: loads pass over bad ones, and "
                        "the last verified one is never removed");

  RunVerbs of_runs;
  add_run_verbs(app, of_runs, json);

  ConvertOptions converting;
  CLI::App* convert_verb = add_convert_verb(app, converting, json);

  FlattenOptions flattening;
  CLI::App* flatten_verb = add_flatten_verb(app, flattening, json);

  ConfigOptions configuring;
  CLI::App* config_verb = add_config_verb(app, configuring, json);

  MigrateOptions migrating;
  CLI::App* migrate_verb = add_migrate_verb(app, migrating, json);

  MigrateConfigOptions moving;
  CLI::App* migrate_config_verb = add_migrate_config_verb(app, moving, json);

  // Wanted before parsing: a usage error has a form, too.
  const bool wants_json = std::any_of(argv + 1, argv + argc, [](const char* argument) {
    return std::string_view(argument) == "--json";
  });
  return run_program(app, argc, argv, wants_json ? ErrorForm::json : ErrorForm::text,
                     [&](const cairn::Comm& comm) {
                       inspecting.json = comparing.json = verifying.json = converting.json = json;
                       configuring.json = migrating.json = moving.json = json;
                       flattening.json = json;
                       of_runs.listing.json = of_runs.pruning.json = of_runs.pinning.json = json;
                       of_runs.beginning.json = json;
                       if (inspect_verb->parsed()) return inspect(comm, inspecting);
                       if (diff_verb->parsed()) return diff(comm, comparing);
                       if (verify_verb->parsed()) return verify(comm, verifying);
                       if (of_runs.ls->parsed()) return ls(comm, of_runs.listing);
                       if (of_runs.prune->parsed()) return prune(comm, of_runs.pruning);
                       if (of_runs.pin->parsed()) return pin(comm, of_runs.pinning, true);
                       if (of_runs.unpin->parsed()) return pin(comm, of_runs.pinning, false);
                       if (of_runs.begin->parsed()) return begin(comm, of_runs.beginning);
                       if (convert_verb->parsed()) return convert(comm, converting);
                       if (flatten_verb->parsed()) return flatten(comm, flattening);
                       if (migrate_verb->parsed()) return migrate(comm, migrating);
                       if (config_verb->parsed()) return config(comm, configuring);
                       if (migrate_config_verb->parsed()) return migrate_config(comm, moving);
                       throw cairn::Error(
                           cairn::Errc::usage,
                           "name what to do: inspect, diff, verify, ls, prune, pin, "
                           "unpin, begin, convert, flatten, migrate, config or migrate-config; see "
                           "'cairn --help'",
                           0);
                     });
}

#include <array>

#include "pipeline/modifier_types.hpp"
#include "pipeline/rules.hpp"
#include "pipeline/words.hpp"

namespace cairn::detail {
namespace {

constexpr auto kEngines = words_of(kEngineWords);
constexpr auto kTransfers = words_of(kTransferWords);
constexpr auto kComponents = words_of(kComponentWords);
constexpr auto kReplicaChecks = words_of(kReplicaWords);
constexpr auto kWhenBusy = words_of(kBusyWords);
constexpr auto kOnFailure = words_of(kFailureWords);
constexpr auto kUnits = words_of(kUnitWords);
constexpr auto kOrders = words_of(kOrderWords);
constexpr auto kFloats = words_of(kFloatWords);

// ---- checkpoint

constexpr std::array kLineageKeys{
    Key{"resume_run_id", Kind::text, "a run's id",
        "The run that goes on; default: what a warm start continues, else a new run"},
    Key{"parent_run_id", Kind::text, "a run's id", "The run that this one was forked from"},
};
constexpr BlockRule kLineage{kLineageKeys};
constexpr std::array kCheckpointKeys{
    Key{"source", Kind::block, "", "Where the checkpoint comes from", {}, false, {}, &kSourceRule},
    Key{"loading",
        Kind::block,
        "",
        "What of it goes into the trainer",
        {},
        false,
        {},
        &kLoadingRule},
    Key{"lineage", Kind::block, "", "Who the run is", {}, false, {}, &kLineage},
    Key{"migrations", Kind::text, "a path",
        "The directory of the format migrations that a checkpoint goes through before it is "
        "loaded"},
};
constexpr BlockRule kCheckpoint{kCheckpointKeys};

// ---- model_modifier

constexpr std::array kFreezeKeys{Key{"layers",
                                     Kind::texts,
                                     "a list of dotted paths",
                                     "Modules or parameters that take no gradients",
                                     {},
                                     true}};
constexpr std::array kLoraKeys{
    Key{"rank",
        Kind::count,
        "a number from 1",
        "The rank of the adapters",
        "8",
        false,
        {},
        nullptr,
        1,
        1 << 20},
    Key{"alpha",
        Kind::number,
        "a number above 0",
        "The scale is alpha / rank; default: rank",
        {},
        false,
        {},
        nullptr,
        1e-9,
        1e9},
    Key{"dropout",
        Kind::number,
        "a number from 0 to below 1",
        "Dropout before the adapters",
        "0",
        false,
        {},
        nullptr,
        0,
        0.999999},
    Key{"target_modules",
        Kind::texts,
        "a list of dotted paths",
        "Linear layers, or modules that hold them",
        {},
        true},
};
constexpr std::array kResetKeys{Key{"layers",
                                    Kind::texts,
                                    "a list of dotted paths",
                                    "Modules or parameters that get fresh values",
                                    {},
                                    true}};
constexpr std::array kCastKeys{
    Key{"dtype", Kind::word, "", "The new type", {}, true, kFloats},
    Key{"layers", Kind::texts, "a list of dotted paths",
        "Modules or parameters; default: the whole model"},
};
constexpr std::array kModifierTypes{
    TypeRule{"freeze", kFreezeKeys},
    TypeRule{"lora", kLoraKeys},
    TypeRule{"reset", kResetKeys},
    TypeRule{"cast", kCastKeys},
};
constexpr std::array kModifierKeys{Key{"modifiers",
                                       Kind::blocks,
                                       "a list of mappings",
                                       "Applied in this order after loading",
                                       {},
                                       false,
                                       {},
                                       &kModifierRule}};
constexpr BlockRule kModelModifier{kModifierKeys};

// ---- pipeline, save

constexpr std::array kPipelineKeys{
    Key{"async_execution", Kind::flag, "true or false",
        "load_checkpoint_async fetches beside the program", "true"},
    Key{"max_retries",
        Kind::count,
        "a number of retries",
        "How often a request of a source is sent again",
        "3",
        false,
        {},
        nullptr,
        0,
        1000},
    Key{"fallback", Kind::flag, "true or false",
        "Of a run's directory, pass over checkpoints that turn out to be damaged", "true"},
    Key{"timeout",
        Kind::number,
        "a number of seconds",
        "The most that a load may take, in all",
        "600",
        false,
        {},
        nullptr,
        0.001,
        kMostTimeoutSeconds},
};
constexpr BlockRule kPipeline{kPipelineKeys};

constexpr std::array kAsyncKeys{
    Key{"budget_bytes", Kind::count, "a number of bytes",
        "The most memory that copies may take on a rank; 0: what fits", "0"},
    Key{"when_busy", Kind::word, "", "What a save does while another is on its way", "wait", false,
        kWhenBusy},
    Key{"on_failure", Kind::word, "", "What a failure in the background does", "fatal", false,
        kOnFailure},
};
constexpr BlockRule kAsync{kAsyncKeys};
constexpr std::array kTriggerKeys{
    Key{"unit", Kind::word, "", "What is counted", {}, true, kUnits},
    Key{"save_frequency",
        Kind::count,
        "a number from 1",
        "A checkpoint every so many units",
        {},
        true,
        {},
        nullptr,
        1},
    Key{"num_models_saved",
        Kind::integer,
        "a number of checkpoints, or -1",
        "How many of the newest stay, where only this trigger saves; -1: all",
        "-1",
        false,
        {},
        nullptr,
        -1},
};
constexpr BlockRule kTrigger{kTriggerKeys};
constexpr std::array kTemplateKeys{
    Key{"minutes", Kind::text, "a template", "Names of checkpoints made every n minutes"},
    Key{"epochs", Kind::text, "a template", "Names of checkpoints made every n epochs"},
    Key{"train_steps", Kind::text, "a template", "Names of checkpoints made every n steps"},
};
constexpr BlockRule kTemplates{kTemplateKeys};
constexpr std::array kMpioKeys{
    Key{"hints", Kind::pairs, "a mapping of names to texts", "Hints for MPI-IO, such as cb_nodes"},
    Key{"component", Kind::word, "", "The implementation of MPI-IO", "auto", false, kComponents},
    Key{"watchdog",
        Kind::number,
        "a number of seconds",
        "The job ends when MPI-IO makes no progress for so long; 0: never; default: the deadline",
        {},
        false,
        {},
        nullptr,
        0,
        kMostTimeoutSeconds},
    Key{"deflate",
        Kind::count,
        "a level from 0 to 9",
        "Compress tensors of 64 KiB and more; 0: off",
        "0",
        false,
        {},
        nullptr,
        0,
        9},
    Key{"shuffle", Kind::flag, "true or false", "With deflate: sort the bytes of elements first",
        "true"},
};
constexpr BlockRule kMpio{kMpioKeys};
constexpr std::array kKeepBestKeys{
    Key{"k",
        Kind::count,
        "a number from 1",
        "How many of the best checkpoints stay",
        {},
        true,
        {},
        nullptr,
        1},
    Key{"metric", Kind::text, "a metric's name", "What is compared", {}, true},
    Key{"mode", Kind::word, "", "Which values are better", {}, true, kOrders},
};
constexpr BlockRule kKeepBest{kKeepBestKeys};
constexpr std::array kSaveKeys{
    Key{"dir", Kind::text, "a path", "The run's directory; default: the run's id below save.root"},
    Key{"root", Kind::text, "a path", "The directory of all runs"},
    Key{"enabled", Kind::flag, "true or false", "false: nothing is saved by itself", "true"},
    Key{"every_n_steps", Kind::count, "a number of steps",
        "0: as the trigger of train_steps says, else no such saves", "0"},
    Key{"every_n_epochs", Kind::count, "a number of epochs",
        "0: as the trigger of epochs says, else no such saves", "0"},
    Key{"every_minutes",
        Kind::number,
        "a number of minutes",
        "0: as the trigger of minutes says, else no such saves",
        "0",
        false,
        {},
        nullptr,
        0,
        1e6},
    Key{"monitor", Kind::text, "the name of a metric", "Its improvements are saved"},
    Key{"mode", Kind::word, "", "Which values of the monitored metric are better", "min", false,
        kOrders},
    Key{"save_top_k",
        Kind::count,
        "a number from 1",
        "An improvement is to be among so many best values",
        "1",
        false,
        {},
        nullptr,
        1},
    Key{"preemption",
        Kind::block,
        "",
        "What signals and the end of the job's time do",
        {},
        false,
        {},
        &kPreemptionRule},
    Key{"keep_last", Kind::count, "a number of checkpoints",
        "How many of the newest checkpoints stay; 0: as the only trigger says, else all", "0"},
    Key{"keep_every_n_steps", Kind::count, "a number of steps",
        "With keep_last: checkpoints whose step is a multiple stay, too; 0: off", "0"},
    Key{"keep_best",
        Kind::block,
        "",
        "With keep_last: the best by a metric stay, too",
        {},
        false,
        {},
        &kKeepBest},
    Key{"lease", Kind::flag, "true or false", "One job alone uses the run's directory", "true"},
    Key{"max_restarts", Kind::count, "a number of restarts",
        "How often in a row a run may start again without progress; 0: any number", "5"},
    Key{"triggers",
        Kind::blocks,
        "a list of mappings",
        "When checkpoints are made",
        {},
        false,
        {},
        &kTrigger},
    Key{"name_templates",
        Kind::block,
        "",
        "Names of checkpoints, for other trainers",
        {},
        false,
        {},
        &kTemplates},
    Key{"engine", Kind::word, "", "POSIX calls or parallel HDF5", "direct", false, kEngines},
    Key{"transfer", Kind::word, "", "How the engine mpio transfers", "collective", false,
        kTransfers},
    Key{"mpio", Kind::block, "", "More about the engine mpio", {}, false, {}, &kMpio},
    Key{"durable", Kind::flag, "true or false", "Sync to the disk before a checkpoint counts",
        "true"},
    Key{"statistics", Kind::flag, "true or false",
        "Record NaN, Inf, minimum, maximum and L2 of each tensor", "false"},
    Key{"replica_check", Kind::word, "", "Compare replicas before a save", "off", false,
        kReplicaChecks},
    Key{"delta", Kind::flag, "true or false",
        "Write only what changed; refer to older checkpoints for the rest", "false"},
    Key{"async",
        Kind::flag_block,
        "true, false or a mapping",
        "Save in the background",
        "false",
        false,
        {},
        &kAsync},
};
constexpr BlockRule kSave{kSaveKeys};

constexpr std::array kRootKeys{
    Key{"checkpoint", Kind::block, "", "What is loaded", {}, false, {}, &kCheckpoint},
    Key{"model_modifier",
        Kind::block,
        "",
        "What changes in the model after loading",
        {},
        false,
        {},
        &kModelModifier},
    Key{"pipeline", Kind::block, "", "How sources are asked", {}, false, {}, &kPipeline},
    Key{"save", Kind::block, "", "What is saved, and how", {}, false, {}, &kSave},
};

}  // namespace

const BlockRule kModifierRule{{}, kModifierTypes, {}, {}, registered_modifier_types};
const BlockRule kDocument{kRootKeys, {}, {}, {}, nullptr, true, true};

}  // namespace cairn::detail

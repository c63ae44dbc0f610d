#include <array>

#include "pipeline/modifier_types.hpp"
#include "pipeline/rules.hpp"

namespace cairn::detail {
namespace {

constexpr std::array<std::string_view, 2> kEngines{"direct", "mpio"};
constexpr std::array<std::string_view, 2> kTransfers{"collective", "independent"};
constexpr std::array<std::string_view, 3> kReplicaChecks{"off", "sample", "full"};
constexpr std::array<std::string_view, 3> kWhenBusy{"wait", "skip", "queue"};
constexpr std::array<std::string_view, 3> kOnFailure{"fatal", "warn", "retry"};
constexpr std::array<std::string_view, 4> kFloats{"f64", "f32", "f16", "bf16"};

// ---- checkpoint.loading

constexpr std::array kRenameKeys{
    Key{"from",
        Kind::text,
        "the beginning of names, or a regular expression",
        "The beginning of names; with regex, an ECMAScript expression",
        {},
        true},
    Key{"to",
        Kind::any_text,
        "a text",
        "What takes its place; with regex, $1 is the first group",
        {},
        true},
    Key{"regex", Kind::flag, "true or false", "Whether `from` is a regular expression", "false"},
};
constexpr BlockRule kRename{kRenameKeys};
constexpr Key kRenameKey{"rename",
                         Kind::blocks,
                         "a list of mappings",
                         "Applied to the checkpoint's names, in order",
                         {},
                         false,
                         {},
                         &kRename};
constexpr Key kResetKey{"reset_layers", Kind::texts, "a list of dotted paths",
                        "Modules that keep their fresh values"};
constexpr Key kStrictKey{"strict", Kind::flag, "true or false",
                         "Names that only one side has are errors", "true"};
constexpr Key kCastKey{"cast", Kind::flag, "true or false",
                       "Convert dtypes that differ; otherwise they are an error", "false"};
constexpr std::array kWarmKeys{kRenameKey, kCastKey};
constexpr std::array kWeightsKeys{kStrictKey, kRenameKey, kCastKey, kResetKey};
constexpr std::array kTransferKeys{
    Key{"strict", Kind::flag, "true or false", "Names that only one side has are errors", "false"},
    Key{"skip_mismatched", Kind::flag, "true or false",
        "A tensor of another shape keeps its fresh values instead of failing", "true"},
    Key{"freeze_loaded", Kind::flag, "true or false", "What was loaded takes no gradients",
        "false"},
    kRenameKey,
    kCastKey,
    Key{"min_match",
        Kind::number,
        "a number from 0 to 1",
        "The share of the model's tensors that must match; one must in any case",
        "0",
        false,
        {},
        nullptr,
        0,
        1},
    kResetKey,
};
constexpr std::array kLoadingTypes{
    TypeRule{"warm_start", kWarmKeys},
    TypeRule{"cold_start", kWeightsKeys},
    TypeRule{"weights_only", kWeightsKeys},
    TypeRule{"transfer_learning", kTransferKeys},
};
constexpr BlockRule kLoading{{}, kLoadingTypes};

constexpr std::array kCheckpointKeys{
    Key{"source", Kind::block, "", "Where the checkpoint comes from", {}, false, {}, &kSourceRule},
    Key{"loading", Kind::block, "", "What of it goes into the trainer", {}, false, {}, &kLoading},
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
constexpr BlockRule kModifier{{}, kModifierTypes, {}, {}, registered_modifier_types};
constexpr std::array kModifierKeys{Key{"modifiers",
                                       Kind::blocks,
                                       "a list of mappings",
                                       "Applied in this order after loading",
                                       {},
                                       false,
                                       {},
                                       &kModifier}};
constexpr BlockRule kModelModifier{kModifierKeys};

// ---- pipeline, save

constexpr std::array kPipelineKeys{
    Key{"async_execution", Kind::flag, "true or false", "Loads may run beside the program", "true"},
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
    Key{"timeout",
        Kind::number,
        "a number of seconds",
        "The most that a source may take, in all",
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
constexpr std::array kSaveKeys{
    Key{"dir", Kind::text, "a path", "The run's directory"},
    Key{"every_n_steps", Kind::count, "a number of steps", "0: no periodic saves", "0"},
    Key{"keep_last", Kind::count, "a number of checkpoints",
        "How many of the newest checkpoints stay; 0: all", "0"},
    Key{"engine", Kind::word, "", "POSIX calls or parallel HDF5", "direct", false, kEngines},
    Key{"transfer", Kind::word, "", "How the engine mpio transfers", "collective", false,
        kTransfers},
    Key{"durable", Kind::flag, "true or false", "Sync to the disk before a checkpoint counts",
        "true"},
    Key{"statistics", Kind::flag, "true or false",
        "Record NaN, Inf, minimum, maximum and L2 of each tensor", "false"},
    Key{"replica_check", Kind::word, "", "Compare replicas before a save", "off", false,
        kReplicaChecks},
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

const BlockRule kDocument{kRootKeys, {}, {}, {}, nullptr, true};

}  // namespace cairn::detail

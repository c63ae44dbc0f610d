#include <array>

#include "pipeline/rules.hpp"
#include "pipeline/words.hpp"

namespace cairn::detail {
namespace {

constexpr auto kRescale = words_of(kRescaleWords);
constexpr auto kVerify = words_of(kVerifyWords);
constexpr auto kBroadcast = words_of(kBroadcastWords);

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
constexpr Key kVerifyKey{
    "verify", Kind::word,
    "",       "When digests are checked: before anything changes, in memory once loaded, or never",
    "before", false,
    kVerify};
constexpr Key kBroadcastKey{"broadcast",
                            Kind::word,
                            "",
                            "Read what several ranks want once, and send it: where that is faster, "
                            "always or never",
                            "auto",
                            false,
                            kBroadcast};
constexpr Key kCopyKey{"keep_copy", Kind::flag, "true or false",
                       "Copy what a load may change first, and put it back when the load fails",
                       "false"};
constexpr Key kProgressKey{"reset_progress", Kind::flag, "true or false",
                           "Epoch and step start at 0", "false"};
constexpr std::array kWarmKeys{
    kRenameKey,
    kCastKey,
    kVerifyKey,
    kBroadcastKey,
    kCopyKey,
    Key{"rescale_lr", Kind::word, "",
        "Learning rates on another number of ranks: by the quotient of the numbers, or its root",
        "off", false, kRescale}};
constexpr std::array kColdKeys{kStrictKey, kRenameKey,    kCastKey, kResetKey,
                               kVerifyKey, kBroadcastKey, kCopyKey};
constexpr std::array kWeightsKeys{kStrictKey, kProgressKey, kRenameKey,    kCastKey,
                                  kResetKey,  kVerifyKey,   kBroadcastKey, kCopyKey};
constexpr std::array kTransferKeys{
    Key{"strict", Kind::flag, "true or false", "Names that only one side has are errors", "false"},
    Key{"skip_mismatched", Kind::flag, "true or false",
        "A tensor of another shape keeps its fresh values instead of failing", "true"},
    Key{"freeze_loaded", Kind::flag, "true or false", "What was loaded takes no gradients",
        "false"},
    kProgressKey,
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
    kVerifyKey,
    kBroadcastKey,
    kCopyKey,
};
constexpr std::array kLoadingTypes{
    TypeRule{"warm_start", kWarmKeys},
    TypeRule{"cold_start", kColdKeys},
    TypeRule{"weights_only", kWeightsKeys},
    TypeRule{"transfer_learning", kTransferKeys},
};

}  // namespace

const BlockRule kLoadingRule{{}, kLoadingTypes};

}  // namespace cairn::detail

#include "pipeline/migrations/rules.hpp"

#include <array>

namespace cairn::detail::migrations {
namespace {

constexpr std::array<std::string_view, 4> kFloats{"f64", "f32", "f16", "bf16"};

constexpr Key text(std::string_view name, std::string_view help) {
  return {name, Kind::text, "a text", help, {}, true};
}
constexpr Key texts(std::string_view name, std::string_view help) {
  return {name, Kind::texts, "a list of texts", help, {}, true};
}
constexpr Key pairs(std::string_view name, std::string_view help, bool required = true) {
  return {name, Kind::pairs, "a mapping of texts", help, {}, required};
}
constexpr Key kOptional{"optional", Kind::flag, "true or false",
                        "Whether the step may find nothing to do", "false"};
constexpr Key kDim{"dim", Kind::count, "a dimension", "The dimension", "0", false, {}, nullptr,
                   0,     31};

constexpr std::array kRename{
    pairs("names", "What names of parameters begin with, and what takes its place"),
    pairs("values", "Words for expressions, and where in the documents their numbers are", false),
    kOptional};
constexpr std::array kBackKeys{
    text("from", "An expression"),
    Key{"to", Kind::any_text, "a text", "What takes its place", {}, true}};
constexpr BlockRule kBack{kBackKeys};
constexpr std::array kRenameRegex{
    text("from", "An ECMAScript expression, found anywhere in a parameter's name"),
    Key{"to", Kind::any_text, "a text", "What takes its place; $1 is the first group", {}, true},
    Key{"back", Kind::block, "", "The same for the way back", {}, false, {}, &kBack}, kOptional};
constexpr std::array kWrap{texts("below", "Beginnings of names, up to a dot"),
                           text("segment", "What is between them and the rest"), kOptional};
constexpr std::array kDrop{texts("names", "Parameters, or the beginnings of their names"),
                           kOptional};
constexpr std::array kUnite{texts("names", "Parameters that are equal"),
                            text("into", "The name of the one that stays"), kOptional};
constexpr std::array kSplit{
    text("name", "The parameter"), texts("into", "The names of its parts, in order"), kDim,
    Key{"sizes", Kind::texts, "a list of numbers", "Of the parts along `dim`; default: equal"},
    kOptional};
constexpr std::array kMerge{texts("names", "The parts, in order"),
                            text("into", "The name of the whole"), kDim, kOptional};
constexpr std::array kCast{
    texts("names", "Parameters, or the beginnings of their names"),
    Key{"dtype", Kind::word, "", "What floats of theirs become", {}, true, kFloats}, kOptional};
constexpr std::array kPermute{
    texts("names", "The parameters"),
    kDim,
    Key{"order", Kind::texts, "a list of numbers", "Which row each new one is"},
    Key{"order_at", Kind::text, "a place in the documents", "The same, from a document"},
    Key{"order_tensor", Kind::text, "a parameter", "The same, from a tensor of integers"},
    kOptional};
constexpr std::array kAt{text("at", "A place in the documents"), kOptional};
constexpr std::array kRenameKey{text("at", "A place in the documents"),
                                text("to", "The new name of its last key"), kOptional};
constexpr std::array kMove{text("from", "A place in the documents"),
                           text("to", "Another one, where nothing is yet"), kOptional};
constexpr std::array kWrapValue{text("at", "A place in the documents"),
                                text("key", "The only key of what is there then"), kOptional};
constexpr std::array kRenameClass{
    pairs("names", "Modules or classes of opaque objects, and their new names"), kOptional};
constexpr std::array kDropClass{texts("names", "Modules or classes of opaque objects"), kOptional};

constexpr std::array kStepTypes{
    TypeRule{"rename", kRename},
    TypeRule{"rename_regex", kRenameRegex},
    TypeRule{"wrap", kWrap},
    TypeRule{"unwrap", kWrap},
    TypeRule{"drop", kDrop},
    TypeRule{"unite", kUnite},
    TypeRule{"split", kSplit},
    TypeRule{"merge", kMerge},
    TypeRule{"cast", kCast},
    TypeRule{"permute", kPermute},
    TypeRule{"set", kAt},
    TypeRule{"delete", kAt},
    TypeRule{"rename_key", kRenameKey},
    TypeRule{"move", kMove},
    TypeRule{"wrap_value", kWrapValue},
    TypeRule{"unwrap_value", kWrapValue},
    TypeRule{"rename_class", kRenameClass},
    TypeRule{"drop_class", kDropClass},
};
constexpr BlockRule kStep{{}, kStepTypes};

constexpr std::array kMigrationKeys{
    text("version", "The release that it leads to"),
    Key{"description", Kind::text, "a text", "What it is for"},
    Key{"final", Kind::flag, "true or false", "Files from before can't be migrated beyond this one",
        "false"},
    Key{"steps", Kind::blocks, "a list of steps", "In order", {}, false, {}, &kStep},
};

}  // namespace

const BlockRule kMigrationRule{kMigrationKeys};

}  // namespace cairn::detail::migrations

#include "pipeline/legacy/keys.hpp"

#include <algorithm>
#include <array>

#include "pipeline/rules.hpp"

namespace cairn::detail::legacy {
namespace {

constexpr std::array kKeys{
    LegacyKey{"training.run_id", Group::load},
    LegacyKey{"training.fork_run_id", Group::load},
    LegacyKey{"training.load_weights_only", Group::load},
    LegacyKey{"training.transfer_learning", Group::load},
    LegacyKey{"hardware.paths.warm_start", Group::load, Era::e1, Era::e1},
    LegacyKey{"hardware.files.warm_start", Group::load, Era::e0, Era::e1},
    LegacyKey{"system.input.warm_start", Group::load, Era::e2, Era::e3},
    LegacyKey{"training.checkpoint", Group::load, Era::e3, Era::e3},
    LegacyKey{"training.submodules_to_freeze", Group::freeze},
    LegacyKey{"hardware.paths.checkpoints", Group::save, Era::e0, Era::e1, true},
    LegacyKey{"system.output.checkpoints.root", Group::save, Era::e2, Era::e3, true},
    LegacyKey{"diagnostics.checkpoint.every_n_minutes.save_frequency", Group::save},
    LegacyKey{"diagnostics.checkpoint.every_n_minutes.num_models_saved", Group::save},
    LegacyKey{"diagnostics.checkpoint.every_n_epochs.save_frequency", Group::save},
    LegacyKey{"diagnostics.checkpoint.every_n_epochs.num_models_saved", Group::save},
    LegacyKey{"diagnostics.checkpoint.every_n_train_steps.save_frequency", Group::save},
    LegacyKey{"diagnostics.checkpoint.every_n_train_steps.num_models_saved", Group::save},
    LegacyKey{"hardware.files.checkpoint.every_n_minutes", Group::save, Era::e0, Era::e1, true},
    LegacyKey{"hardware.files.checkpoint.every_n_epochs", Group::save, Era::e0, Era::e1, true},
    LegacyKey{"hardware.files.checkpoint.every_n_train_steps", Group::save, Era::e0, Era::e1, true},
    LegacyKey{"system.output.checkpoints.every_n_minutes", Group::save, Era::e2, Era::e3, true},
    LegacyKey{"system.output.checkpoints.every_n_epochs", Group::save, Era::e2, Era::e3, true},
    LegacyKey{"system.output.checkpoints.every_n_train_steps", Group::save, Era::e2, Era::e3, true},
    LegacyKey{"diagnostics.enable_checkpointing", Group::save, Era::e0, Era::e3, true},
    LegacyKey{"training.swa", Group::averaging},
};

constexpr std::string_view kMissing = "\?\?\?";

bool has_class(const Value& value) {
  return value.find("_target_") != nullptr ||
         std::any_of(value.entries.begin(), value.entries.end(),
                     [](const auto& entry) { return has_class(entry.second); }) ||
         std::any_of(value.items.begin(), value.items.end(), has_class);
}

}  // namespace

bool parse_legacy_flag(std::string_view text, bool& flag) {
  flag = text == "1";
  return flag || text == "0" || parse_flag(text, flag);
}

std::span<const LegacyKey> legacy_keys() { return kKeys; }

const Value* find_path(const Value& document, std::string_view path) {
  const Value* value = &document;
  while (value != nullptr && !path.empty()) {
    const auto dot = path.find('.');
    value = value->type == Value::Type::mapping ? value->find(path.substr(0, dot)) : nullptr;
    path = dot == std::string_view::npos ? std::string_view{} : path.substr(dot + 1);
  }
  return value;
}

bool says_something(const LegacyKey& key, const Value* value) {
  if (value == nullptr || value->type == Value::Type::null) return false;
  bool flag = false;
  if (value->type == Value::Type::scalar) {
    if (value->text.empty()) return false;
    // A value that is still to be given stays where it is, unless a load would go wrong by it.
    if (key.group == Group::save && value->text == kMissing) return false;
    if (key.path.ends_with("save_frequency") && value->text == "0") return false;
    return key.stated || !parse_legacy_flag(value->text, flag) || flag;
  }
  if (key.path == "training.checkpoint") return has_class(*value);
  if (key.path == "training.swa") {
    const Value* enabled = value->find("enabled");
    return enabled != nullptr && enabled->type == Value::Type::scalar &&
           !(parse_legacy_flag(enabled->text, flag) && !flag);
  }
  return !value->items.empty() || !value->entries.empty();
}

const LegacyKey* first_legacy_key(const Value& document) {
  const auto keys = legacy_keys();
  const auto at = std::find_if(keys.begin(), keys.end(), [&](const LegacyKey& key) {
    // How many models stay says nothing without how often they are saved.
    return !key.path.ends_with("num_models_saved") &&
           says_something(key, find_path(document, key.path));
  });
  return at == keys.end() ? nullptr : &*at;
}

void refuse_legacy_keys(const Value& document, const Place& place) {
  const LegacyKey* key = first_legacy_key(document);
  if (key == nullptr) return;
  place.at(key->path).refuse(*find_path(document, key->path),
                             "is a key of the legacy configuration, which cairn does not obey: "
                             "migrate the file with 'cairn migrate-config'");
}

}  // namespace cairn::detail::legacy

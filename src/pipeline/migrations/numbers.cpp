#include "pipeline/migrations/numbers.hpp"

#include <algorithm>
#include <set>
#include <unordered_set>
#include <utility>

#include "base/throw.hpp"

namespace cairn::detail::migrations {
namespace {

bool has_numbers(Working& working) {
  return working.document("tree").is_array() && working.document("optimizers").is_array();
}

/// Whether a path leads below the key `state` of the optimizer at `optimizer`.
bool is_in_state(const Json& path, const Json& optimizer) {
  return path.size() > optimizer.size() &&
         std::equal(optimizer.begin(), optimizer.end(), path.begin()) &&
         path[optimizer.size()] == "state";
}

/// The names of the parameters themselves, and those that stand for them.
std::unordered_set<std::string> names_of_model(Working& working) {
  std::unordered_set<std::string> names;
  for (const Item& item : working.items) {
    const auto role = role_of(item.entry.name);
    if (role && !role->is_slot()) names.insert(role->parameter);
  }
  for (const auto& [alias, name] : working.aliases()) names.insert(alias);
  return names;
}

[[noreturn]] void refuse(const Json& optimizer, const std::string& parameter) {
  fail(Errc::unsupported,
       "the state that the optimizer at {} has of '{}' would stay as it is: PyTorch numbers "
       "parameters, and which of the model's tensors these are can't be told for certain; 'cairn "
       "convert --weights-only' the file first, and begin with a new optimizer",
       optimizer.at("path").dump(), parameter);
}

}  // namespace

void require_state_follows(Working& working, const NameChanges& changes) {
  if (changes.empty() || !has_numbers(working)) return;
  const std::string& first = changes.begin()->first;
  const std::unordered_set<std::string> model = names_of_model(working);
  for (const Json& optimizer : working.document("optimizers")) {
    const Json& path = optimizer.at("path");
    const Json& parameters = optimizer.at("parameters");
    if (!parameters.is_array()) refuse(optimizer, first);
    std::set<std::string> known;
    bool others = false;  // names that the model has not: a wrapper's, maybe
    for (const Json& name : parameters) {
      others = !model.contains(*known.insert(name.get<std::string>()).first) || others;
    }
    for (const Json& item : std::as_const(working.document("tree"))) {
      if (!is_in_state(item.at(1), path)) continue;
      const auto role = role_of(item.at(0).get_ref<const std::string&>());
      if (!role || !role->is_slot()) refuse(optimizer, first);
    }
    // On the way back the documents have other names than the tensors, until all is undone.
    if (!others || !working.documents_follow) continue;
    for (const auto& [name, now] : changes) {
      if (!known.contains(name)) refuse(optimizer, name);
    }
  }
}

void follow_numbers(Working& working, const NameChanges& changes) {
  if (!has_numbers(working)) return;
  std::set<std::string> results;
  for (Json& optimizer : working.change("optimizers")) {
    if (!optimizer.is_object() || !optimizer.contains("parameters")) continue;
    for (Json& name : optimizer["parameters"]) {
      if (!name.is_string()) continue;
      const auto names = names_now(changes, name.get<std::string>());
      if (names.size() != 1 || !results.insert(names[0]).second) {
        fail(Errc::unsupported,
             "'{}' has a number in the optimizer of a file of PyTorch's, where parameters can be "
             "renamed, but not divided, joined or left out: 'cairn convert --weights-only' the "
             "file first",
             name.get<std::string>());
      }
      name = names[0];
    }
    results.clear();
  }
}

}  // namespace cairn::detail::migrations

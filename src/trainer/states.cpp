#include "trainer/states.hpp"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <span>
#include <utility>

#include "base/digest.hpp"
#include "base/throw.hpp"
#include "pipeline/load_plan.hpp"

namespace cairn::detail {
namespace {

using Json = nlohmann::json;

constexpr const char* kDocument = "state";
// A blob of another size means another layout of the container: sizes go by steps.
constexpr std::size_t kBlobStep = 1024;

std::string blob_name(const std::string& state) { return "state." + state; }

std::vector<std::byte> blob_of(std::string text) {
  text.resize((text.size() / kBlobStep + 1) * kBlobStep, ' ');
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

std::string text_of(const std::vector<std::byte>& blob) {
  std::string text(reinterpret_cast<const char*>(blob.data()), blob.size());
  text.resize(text.find_last_not_of(' ') + 1);
  return text;
}

std::string tensor_name(const std::string& state, const std::string& tensor) {
  return state + "/" + tensor;
}

Json document_of(const Manifest& manifest) {
  const auto document = manifest.documents.find(kDocument);
  if (document == manifest.documents.end()) return Json::object();
  try {
    return Json::parse(document->second);
  } catch (const Json::exception& error) {
    fail(Errc::corrupt, "'{}': the document '{}' can't be understood ({}); use another checkpoint",
         manifest.path().string(), kDocument, error.what());
  }
}

}  // namespace

void check_state_name(const std::string& name) {
  const bool plain = !name.empty() && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-';
  });
  const bool ours = name == "model" || name == "optimizer" || name == "ranks" || name == "meta" ||
                    name == "index" || name == "commit";
  if (plain && !ours) return;
  fail(Errc::usage, "'{}' can't name a state{}", name,
       ours ? ": the name is cairn's own" : "; use letters, digits, _ and -");
}

std::uint64_t hash_of(const States& states) {
  Digester digester;
  for (const auto& [name, object] : states) {
    digester.update(std::string_view(name));
    digester.update(static_cast<std::uint64_t>(object->scope()));
  }
  return digester.value();
}

void collect_states(const States& states, StateView& to) {
  if (states.empty()) return;
  Json document = Json::object();
  for (const auto& [name, object] : states) {
    std::string text = object->state();
    if (!Json::accept(text)) fail(Errc::usage, "the state '{}' is not JSON", name);
    if (object->scope() == StateScope::per_rank) {
      document[name] = {{"scope", "per_rank"}};
      to.rank_blobs[blob_name(name)] = blob_of(std::move(text));
    } else {
      document[name] = {{"scope", "shared"}, {"state", text}};
    }
    for (const MutableTensorView& tensor : object->tensors()) {
      to.tensors.push_back(
          {tensor_name(name, tensor.name), tensor.dtype, tensor.placement, tensor.data});
    }
  }
  to.documents[kDocument] = document.dump(-1, ' ', false, Json::error_handler_t::replace);
}

StatesLoad::StatesLoad(const Manifest& manifest, const CheckpointNames& names, const States& states)
    : manifest_(manifest) {
  const Json document = document_of(manifest);
  for (const auto& [name, object] : states) {
    Item& item = items_.emplace_back();
    item.name = name;
    item.object = object;
    const auto found = document.find(name);
    item.found = found != document.end();
    if (!item.found) {
      warnings_.push_back(
          fmt::format("the checkpoint has no state '{}', which stays as it is", name));
      continue;
    }
    if (found->is_object() && found->contains("state") && found->at("state").is_string()) {
      item.text = found->at("state").get<std::string>();
    }
    for (MutableTensorView& tensor : object->tensors()) {
      tensor.name = tensor_name(name, tensor.name);
      const auto position = names.find(tensor.name);
      if (!position) {
        fail(Errc::mismatch, "'{}' has no tensor '{}', which the state '{}' wants",
             manifest.path().string(), tensor.name, name);
      }
      positions_.push_back(*position);
      targets_.push_back(std::move(tensor));
    }
  }
  if (!document.is_object()) return;
  for (const auto& [name, state] : document.items()) {
    if (name != kTrainerState && !states.contains(name)) untaken_.push_back(name);
  }
  if (untaken_.empty()) return;
  warnings_.push_back(fmt::format(
      "of the states in the checkpoint nobody takes {}: call add_state before the load, "
      "by the name of the saved run; without that, the run does not go on where it was",
      list_some(untaken_)));
}

void StatesLoad::read_blobs(const Comm& comm) {
  for (Item& item : items_) {
    if (item.object->scope() != StateScope::per_rank) continue;
    const auto blob = load_rank_blob(comm, manifest_, blob_name(item.name));
    if (blob) item.text = text_of(*blob);
  }
}

void StatesLoad::apply() {
  for (Item& item : items_) {
    if (!item.text) continue;
    item.undo = item.object->undo();
    item.object->load(*item.text);
  }
}

void StatesLoad::keep_tensors() {
  for (const MutableTensorView& target : targets_) {
    const std::uint64_t bytes = target.placement.elements() * item_bytes(target.dtype);
    const auto* from = static_cast<const std::byte*>(target.data);
    kept_.emplace_back(from, from + bytes);
  }
}

void StatesLoad::roll_back() noexcept {
  for (std::size_t t = 0; t < kept_.size(); ++t) {
    if (!kept_[t].empty()) std::memcpy(targets_[t].data, kept_[t].data(), kept_[t].size());
  }
  for (Item& item : items_) {
    if (!item.undo) continue;
    try {
      item.undo();
    } catch (...) {
      // A state that refuses what it was must not hide the error that all ranks agreed on.
    }
  }
}

std::vector<StateReport> StatesLoad::finish(int saved_ranks, int ranks) {
  std::vector<StateReport> reports;
  for (const Item& item : items_) {
    if (!item.found) {
      reports.push_back({item.name, "left as it is: the checkpoint does not have it"});
    } else if (!item.text && saved_ranks == ranks) {
      reports.push_back({item.name, "left as it is: the checkpoint has none of this rank"});
    } else if (saved_ranks != ranks) {
      reports.push_back({item.name, item.object->resized(saved_ranks, ranks)});
    } else {
      reports.push_back({item.name, "restored"});
    }
  }
  for (const std::string& name : untaken_) {
    reports.push_back({name, "not loaded: the program has no such state"});
  }
  return reports;
}

}  // namespace cairn::detail

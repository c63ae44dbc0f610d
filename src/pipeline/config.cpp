#include "cairn/config.hpp"

#include <fmt/ranges.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <initializer_list>
#include <string_view>
#include <utility>
#include <vector>

#include "base/near_names.hpp"
#include "base/throw.hpp"

namespace cairn {
namespace {

using detail::edit_distance;
using detail::fail;

/// A mapping of the document, with the place to name in errors.
class Block {
 public:
  Block(YAML::Node node, std::string key, const std::string& origin)
      : node_(std::move(node)), key_(std::move(key)), origin_(origin) {
    if (!node_.IsMap()) refuse(node_, key_, "must be a mapping");
  }

  /// Refuses every key that is not in `known`, with the nearest known one.
  void allow(std::initializer_list<std::string_view> known) const {
    for (const auto& entry : node_) {
      const auto key = entry.first.as<std::string>();
      if (std::find(known.begin(), known.end(), key) != known.end()) continue;
      const auto nearest = std::min_element(known.begin(), known.end(), [&](auto a, auto b) {
        return edit_distance(key, a) < edit_distance(key, b);
      });
      refuse(entry.first, path(key), fmt::format("is unknown; did you mean '{}'?", *nearest));
    }
  }

  /// Refuses what the schema has and this version does not act on.
  void not_yet(std::string_view key) const {
    const auto node = node_[std::string(key)];
    if (!node) return;
    const auto value = node.IsScalar() ? fmt::format(" '{}'", node.as<std::string>()) : "";
    fail(Errc::unsupported, "{}: '{}'{} is not supported by this version of cairn; remove it",
         where(node), path(key), value);
  }

  std::optional<Block> block(std::string_view key) const {
    const auto node = node_[std::string(key)];
    if (!node || node.IsNull()) return std::nullopt;
    return Block(node, path(key), origin_);
  }

  bool holds_mapping(std::string_view key) const {
    const auto node = node_[std::string(key)];
    return node && node.IsMap();
  }

  template <class T>
  std::optional<T> value(std::string_view key, std::string_view kind) const {
    const auto node = node_[std::string(key)];
    if (!node) return std::nullopt;
    try {
      return node.as<T>();
    } catch (const YAML::Exception&) {
      refuse(node, path(key), fmt::format("must be {}", kind));
    }
  }

  template <class F>
  void choose(std::string_view key, F&& take) const {
    const auto text = value<std::string>(key, "a word");
    if (!text) return;
    try {
      take(*text);
    } catch (const Error& error) {
      refuse(node_[std::string(key)], path(key), error.what());
    }
  }

  [[noreturn]] void refuse(const std::string& why) const { refuse(node_, key_, why); }
  [[noreturn]] void refuse(const YAML::Node& node, const std::string& key,
                           const std::string& why) const {
    fail(Errc::usage, "{}: {} {}", where(node),
         key.empty() ? "the document" : fmt::format("'{}'", key), why);
  }

 private:
  std::string path(std::string_view key) const {
    return key_.empty() ? std::string(key) : fmt::format("{}.{}", key_, key);
  }
  std::string where(const YAML::Node& node) const {
    return fmt::format("{}:{}", origin_, node.Mark().line + 1);
  }

  YAML::Node node_;
  std::string key_;
  const std::string& origin_;
};

/// The value of a word. Errors: usage, with the words that there are.
template <class T>
T one_of(std::string_view text, std::initializer_list<std::pair<std::string_view, T>> words) {
  std::vector<std::string> known;
  for (const auto& [word, value] : words) {
    if (word == text) return value;
    known.push_back(fmt::format("'{}'", word));
  }
  fail(Errc::usage, "must be {}", fmt::join(known, " or "));
}

LocalSource parse_source(const Block& block) {
  const auto type = block.value<std::string>("type", "a word").value_or("local");
  if (type != "local") block.not_yet("type");
  block.allow({"type", "path"});
  const auto path = block.value<std::string>("path", "a path");
  if (!path || path->empty()) block.refuse("needs a 'path'");
  return {*path};
}

AsyncOptions parse_async(const Block& block) {
  block.allow({"budget_bytes", "when_busy", "on_failure"});
  AsyncOptions async;
  async.budget_bytes =
      block.value<std::uint64_t>("budget_bytes", "a number of bytes").value_or(async.budget_bytes);
  block.choose("when_busy", [&](const std::string& text) {
    async.when_busy = one_of<WhenBusy>(
        text, {{"wait", WhenBusy::wait}, {"skip", WhenBusy::skip}, {"queue", WhenBusy::queue}});
  });
  block.choose("on_failure", [&](const std::string& text) {
    async.on_failure = one_of<OnFailure>(
        text,
        {{"fatal", OnFailure::fatal}, {"warn", OnFailure::warn}, {"retry", OnFailure::retry}});
  });
  return async;
}

void parse_save(const Block& block, SaveConfig& save) {
  block.allow({"dir", "every_n_steps", "engine", "transfer", "durable", "statistics",
               "replica_check", "async"});
  if (block.holds_mapping("async")) {
    save.async = parse_async(*block.block("async"));
  } else if (block.value<bool>("async", "true, false or a mapping").value_or(false)) {
    save.async = AsyncOptions{};
  }
  if (const auto dir = block.value<std::string>("dir", "a path")) save.dir = *dir;
  save.every_n_steps =
      block.value<std::uint64_t>("every_n_steps", "a number of steps").value_or(save.every_n_steps);
  save.durable = block.value<bool>("durable", "true or false").value_or(save.durable);
  save.statistics = block.value<bool>("statistics", "true or false").value_or(save.statistics);
  block.choose("replica_check", [&](const std::string& text) {
    save.replica_check = one_of<ReplicaCheck>(text, {{"off", ReplicaCheck::off},
                                                     {"sample", ReplicaCheck::sample},
                                                     {"full", ReplicaCheck::full}});
  });
  block.choose("engine", [&](const std::string& text) { save.engine = engine_from_string(text); });
  block.choose("transfer", [&](const std::string& text) {
    save.transfer = one_of<Transfer>(
        text, {{"collective", Transfer::collective}, {"independent", Transfer::independent}});
  });
}

Config parse(const YAML::Node& document, const std::string& origin) {
  Config config;
  if (document.IsNull()) return config;
  const Block root(document, "", origin);
  root.allow({"checkpoint", "model_modifier", "pipeline", "save"});
  root.not_yet("model_modifier");
  root.not_yet("pipeline");
  if (const auto checkpoint = root.block("checkpoint")) {
    checkpoint->allow({"source", "loading"});
    checkpoint->not_yet("loading");
    if (const auto source = checkpoint->block("source")) config.source = parse_source(*source);
  }
  if (const auto save = root.block("save")) parse_save(*save, config.save);
  return config;
}

}  // namespace

Config Config::from_string(const std::string& yaml, const std::string& origin) {
  try {
    return parse(YAML::Load(yaml), origin);
  } catch (const YAML::Exception& error) {
    fail(Errc::usage, "{}:{}: not valid YAML: {}", origin, error.mark.line + 1, error.msg);
  }
}

Config Config::from_file(const std::filesystem::path& path) {
  std::error_code error_code;
  if (std::filesystem::is_directory(path, error_code)) {
    fail(Errc::usage, "the configuration '{}' is a directory", path.string());
  }
  try {
    return parse(YAML::LoadFile(path.string()), path.string());
  } catch (const YAML::BadFile&) {
    fail(Errc::not_found, "cannot read the configuration '{}'", path.string());
  } catch (const YAML::Exception& error) {
    fail(Errc::usage, "{}:{}: not valid YAML: {}", path.string(), error.mark.line + 1, error.msg);
  }
}

}  // namespace cairn

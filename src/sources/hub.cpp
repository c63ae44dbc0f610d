#include "sources/hub.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "base/nonce.hpp"
#include "base/sha256.hpp"
#include "base/text.hpp"
#include "base/throw.hpp"
#include "formats/strict_json.hpp"
#include "manifest/cache_names.hpp"
#include "os/fault.hpp"
#include "sources/cache.hpp"
#include "sources/http.hpp"
#include "sources/local.hpp"
#include "sources/url.hpp"

namespace cairn::detail {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kIndexFile = "model.safetensors.index.json";
constexpr std::string_view kSingleFile = "model.safetensors";
constexpr std::uint64_t kMostIndexBytes = 100'000'000;  // that of an index that is read
constexpr std::size_t kMostShards = 100'000;

void check_name(const std::string& name, std::string_view who) {
  if (is_inside(name)) return;
  fail(Errc::unsafe, "{} names the file '{}', which is not a path inside the model", who,
       printable(name));
}

/// Collects the files that an index names; nothing else of it is kept.
class ShardNames final : public JsonReader {
 public:
  explicit ShardNames(const std::string& shown) : shown_(shown) {}

  void on_object() override {
    ++depth_;
    if (in_map() && depth_ > 2) refuse("an object");
  }
  void on_object_end() override { --depth_; }
  void on_array() override {
    ++depth_;
    if (in_map()) refuse("a list");
  }
  void on_array_end() override { --depth_; }
  void on_key(std::string& text) override {
    if (depth_ == 1) section_ = std::move(text);
  }
  void on_text(std::string& text) override {
    if (!in_map() || depth_ != 2) return on_scalar("a text");
    check_name(text, shown_);
    names_.insert(std::move(text));
    if (names_.size() > kMostShards) {
      fail(Errc::unsafe, "{}: it names more than {} files", shown_, kMostShards);
    }
  }
  void on_natural(std::uint64_t) override { on_scalar("a number"); }
  void on_number(double) override { on_scalar("a number"); }
  void on_word(std::string_view word) override { on_scalar(word); }

  std::set<std::string> take() {
    if (names_.empty()) fail(Errc::corrupt, "it has no weight_map");
    return std::move(names_);
  }

 protected:
  std::string place() const override { return in_map() ? "'weight_map'" : "it"; }

 private:
  bool in_map() const { return section_ == "weight_map"; }

  void on_scalar(std::string_view what) {
    if (in_map()) refuse(what);
  }

  const std::string& shown_;
  std::uint64_t depth_ = 0;
  std::string section_;  // the key of the outermost object
  std::set<std::string> names_;
};

/// The files that an index names, in order.
std::set<std::string> shards_of(const CachedFile& index, const std::string& shown) {
  if (index.size > kMostIndexBytes) {
    fail(Errc::unsafe, "{}: it has {} bytes; an index of at most {} is read", shown, index.size,
         kMostIndexBytes);
  }
  const File file = File::open_read(index.path);
  std::string text(index.size, '\0');
  file.read_at(0, std::as_writable_bytes(std::span(text)));
  ShardNames names(shown);
  try {
    read_json(text, names);
    return names.take();
  } catch (const Error& error) {
    if (error.code() != Errc::corrupt) throw;
    fail(Errc::corrupt, "{} is no index: {}", shown, error.what());
  }
}

class Model {
 public:
  Model(const HubSource& source, const fs::path& cache_dir, const FetchLimits& limits,
        FetchState& state)
      : source_(source),
        endpoint_(parse_endpoint(source.endpoint)),
        cache_dir_(cache_dir),
        limits_(limits),
        state_(state) {}

  Fetched fetch() {
    if (!source_.file.empty()) {
      check_name(source_.file, "checkpoint.source.file");
      return fetch_from(source_.file);
    }
    try {
      return fetch_from(std::string(kIndexFile));
    } catch (const Error& error) {
      if (error.code() != Errc::not_found || !revision_.empty()) throw;
    }
    return fetch_from(std::string(kSingleFile));
  }

 private:
  Fetched fetch_from(const std::string& name) {
    const CachedFile first = fetch_file(name, source_.revision);
    if (!name.ends_with(kIndexSuffix)) return fetched_file(first, cache_dir_);
    // A branch may move while the shards come, a commit does not.
    revision_ = first.commit.empty() ? source_.revision : first.commit;
    std::map<std::string, CachedFile> files{{name, first}};
    const std::string inside = fs::path(name).parent_path().string();
    for (const std::string& shard : shards_of(first, shown(name))) {
      const std::string path = inside.empty() ? shard : inside + "/" + shard;
      files.emplace(path, fetch_file(path, revision_));
    }
    return gather(files, name);
  }

  CachedFile fetch_file(const std::string& name, const std::string& revision) {
    const Remote remote{
        .url = fmt::format("{}://{}{}/{}/resolve/{}/{}", endpoint_.scheme, endpoint_.host,
                           endpoint_.path, percent_encoded(source_.repo, "/"),
                           percent_encoded(revision), percent_encoded(name, "/")),
        .shown = shown(name),
        .name = file_name_of(name),
        .ca_file = ca_file_of(source_.fetch.ca_file),
        .headers = [this] { return bearer_header(source_.token_env); }};
    return fetch_cached(remote, cache_dir_, limits_, state_);
  }

  /// One directory with links to the files in the cache, named by all of their contents.
  Fetched gather(const std::map<std::string, CachedFile>& files, const std::string& main) {
    std::string all;
    for (const auto& [name, file] : files) all += fmt::format("{}\n{}\n", name, file.sha256);
    const fs::path dir = names::cache_model(cache_dir_, to_hex(sha256_of(all)));
    Fetched fetched{dir / main, cache_dir_};
    make_directories(names::cache_partials(cache_dir_));
    for (const auto& [name, file] : files) {
      const fs::path link = dir / name;
      make_directories(link.parent_path());
      fault_point("hub.link");
      replace_link(fs::absolute(file.path).string(), link,
                   names::cache_partial(cache_dir_, random_nonce()));
      fetched.files.push_back({link, file.size, file.sha256});
    }
    return fetched;
  }

  std::string shown(const std::string& name) const {
    return fmt::format("{}/{}", describe(source_), name);
  }

  const HubSource& source_;
  const Url endpoint_;
  const fs::path& cache_dir_;
  const FetchLimits& limits_;
  FetchState& state_;
  std::string revision_;  // of the shards
};

}  // namespace

Fetched fetch_hub(const HubSource& source, const std::filesystem::path& cache_dir,
                  const FetchLimits& limits, FetchState& state) {
  const bool named = std::count(source.repo.begin(), source.repo.end(), '/') <= 1;
  if (!named || !is_inside(source.repo) || !is_inside(source.revision)) {
    fail(Errc::usage, "'{}@{}' is not a repository (owner/name) and a revision of it", source.repo,
         source.revision);
  }
  return Model(source, cache_dir, limits, state).fetch();
}

}  // namespace cairn::detail

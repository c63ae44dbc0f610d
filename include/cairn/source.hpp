#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <variant>

#include "cairn/comm.hpp"
#include "cairn/export.hpp"

namespace cairn {

/// Where a checkpoint comes from. `path` is a checkpoint, or a run directory whose newest committed
/// checkpoint is meant. A leading `~` is the home directory.
struct LocalSource {
  std::filesystem::path path;
  bool operator==(const LocalSource&) const = default;
};

/// The newest committed checkpoint of `<root>/<run_id>`; where there is none, its `last.ckpt`.
struct RunSource {
  std::filesystem::path root;  ///< a configuration that gives none means its save.root
  std::string run_id;
  /// A new run begins here, with an id of its own and `run_id` as its parent; otherwise the run is
  /// continued. For whoever keeps lineage (CheckpointManager): the checkpoint is the same.
  bool fork = false;
  std::string file = {};  ///< this file in the run's directory instead; no path that leaves it
  bool operator==(const RunSource&) const = default;
};

/// How the types below keep and get their files.
struct FetchOptions {
  /// Where files are kept, by content. Empty: $CAIRN_CACHE_DIR, else $XDG_CACHE_HOME/cairn, else
  /// ~/.cache/cairn.
  std::filesystem::path cache_dir = {};
  /// Negative: SourceSettings::max_retries. 0: none.
  int max_retries = -1;
  /// 0: SourceSettings::timeout.
  std::chrono::milliseconds timeout{0};
  /// Requests at a time, at least 1.
  unsigned connections = 4;
  /// Bytes of one request, at least 1.
  std::uint64_t part_bytes = 16 << 20;
  /// Certificates to trust instead of the system's (PEM).
  std::filesystem::path ca_file = {};
  bool operator==(const FetchOptions&) const = default;
};

struct HttpSource {
  std::string url;  ///< http:// or https://
  /// 64 hexadecimal digits; empty: whatever the server has. A file that the cache has, wherever it
  /// came from, is used without asking.
  std::string sha256 = {};
  /// The environment variable that holds a bearer token; empty: none is sent.
  std::string token_env = {};
  FetchOptions fetch = {};
  bool operator==(const HttpSource&) const = default;
};

enum class S3Style : std::uint8_t {
  automatic,  ///< path where `endpoint` is given or the bucket has dots, otherwise virtual
  path,       ///< endpoint/bucket/key
  virtual_host,
};

/// Credentials come from the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
/// AWS_SESSION_TOKEN) or from a profile of the shared credentials file, never from here.
struct S3Source {
  std::string bucket;
  std::string key;
  std::string region = {};    ///< empty: the environment's, the profile's, else us-east-1
  std::string endpoint = {};  ///< empty: $AWS_ENDPOINT_URL_S3, $AWS_ENDPOINT_URL, else Amazon's
  S3Style style = S3Style::automatic;
  std::string profile = {};  ///< empty: the environment's credentials, then $AWS_PROFILE or default
  bool anonymous = false;    ///< send no credentials
  std::string sha256 = {};
  FetchOptions fetch = {};
  bool operator==(const S3Source&) const = default;
};

/// A model on a Hugging Face hub: the shards that its index names, or its single file.
struct HubSource {
  std::string repo;  ///< "owner/name"
  std::string revision = "main";
  std::string file = {};  ///< empty: model.safetensors.index.json, else model.safetensors
  std::string endpoint = "https://huggingface.co";
  std::string token_env = "HF_TOKEN";
  FetchOptions fetch = {};
  bool operator==(const HubSource&) const = default;
};

/// A source of a type that the program registered; all keys of its block but `type` as texts, those
/// that `fetch` takes among them.
struct CustomSource {
  std::string type;
  std::map<std::string, std::string> options = {};
  FetchOptions fetch = {};
  bool operator==(const CustomSource&) const = default;
};

using Source = std::variant<LocalSource, RunSource, HttpSource, S3Source, HubSource, CustomSource>;

/// "s3", "http", ...: the `type` of the configuration. Local.
CAIRN_EXPORT std::string_view source_type(const Source& source);
/// What a source is called in messages: without credentials, and without what follows a `?`. Local.
CAIRN_EXPORT std::string describe(const Source& source);
/// What the fetch of a registered type may use, with all defaults filled in.
struct FetchContext {
  std::filesystem::path cache_dir;
  int max_retries = 0;
  std::chrono::steady_clock::time_point deadline;
};

/// Gets a checkpoint and returns where it lies now. Called on rank 0 only, on a thread of its own;
/// it must not communicate, and must end by `deadline`: later its result does not count. What it
/// throws all ranks throw. Where the file, or the directory, lies in `context.cache_dir` and other
/// nodes do not see it, cairn brings it to them.
using SourceFunction =
    std::function<std::filesystem::path(const CustomSource& source, const FetchContext& context)>;

/// Makes `type` known to configurations and to resolve_source on this process. Call it on every
/// rank, before the configuration is read. Thread-safe. Local. Errors: usage (the type exists).
CAIRN_EXPORT void register_source_type(const std::string& type, SourceFunction fetch);

/// How far a fetch is. What the cache has already does not count.
struct FetchProgress {
  std::uint64_t done_bytes = 0;
  std::uint64_t total_bytes = 0;  ///< of the files whose sizes are known so far
};

/// What holds for all sources of a program (the configuration's `pipeline`).
struct SourceSettings {
  /// How often a request that brought nothing is sent again, in a row.
  int max_retries = 3;
  /// From the call to the file, whatever happens in between.
  std::chrono::milliseconds timeout = std::chrono::seconds(600);
  /// Of a run's directory: checkpoints that are marked as bad are passed over, with a warning, and
  /// files that only have the name of one are marked. Off: the newest committed one, whatever is
  /// known of it.
  bool fallback = true;
  /// Called on rank 0, in resolve_source, a few times a second. Empty: a line on the terminal, if
  /// standard error is one.
  std::function<void(const FetchProgress&)> progress = {};
};

/// The file that `source` means, ready to be opened by every rank. Rank 0 alone looks and fetches;
/// its `source` and `settings` count. Files are kept in the cache and used again; where the nodes
/// of other ranks do not see them, rank 0 sends them there, once a node. Collective. Errors:
/// not_found (no such file or object), io (refused: 401, 403; no connection; no such host),
/// timeout, corrupt (not the SHA-256 that is expected), usage, unsafe (an index names files outside
/// the model), unsupported (a server that does not tell how long a file is).
CAIRN_EXPORT std::filesystem::path resolve_source(const Comm& comm, const Source& source,
                                                  const SourceSettings& settings = {});

/// For a load of `path`, which resolve_source gave, that failed with `error` on all ranks: whether
/// resolve_source gives another checkpoint now. So it is when `source` is a run's directory, the
/// error says that the data is damaged (corrupt), a look at all digests says so, too, and the
/// settings want to fall back: then rank 0 marks the checkpoint as bad, in a hidden file beside it,
/// with a warning on stderr. The mark counts as long as the file does not change. Collective.
CAIRN_EXPORT bool skip_damaged(const Comm& comm, const Source& source,
                               const SourceSettings& settings, const std::filesystem::path& path,
                               const Error& error);

}  // namespace cairn

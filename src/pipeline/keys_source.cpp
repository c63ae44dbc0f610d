#include <array>

#include "pipeline/rules.hpp"
#include "sources/registry.hpp"

namespace cairn::detail {
namespace {

constexpr std::array<std::string_view, 3> kStyles{"auto", "path", "virtual"};

constexpr std::array kFetchKeys{
    Key{"cache_dir", Kind::text, "a path",
        "Where files are kept, by content; default: $CAIRN_CACHE_DIR, else "
        "$XDG_CACHE_HOME/cairn, else ~/.cache/cairn"},
    Key{"max_retries",
        Kind::count,
        "a number of retries",
        "Instead of pipeline.max_retries, for this source",
        {},
        false,
        {},
        nullptr,
        0,
        1000},
    Key{"timeout",
        Kind::number,
        "a number of seconds",
        "Instead of pipeline.timeout, for this source",
        {},
        false,
        {},
        nullptr,
        0.001,
        kMostTimeoutSeconds},
    Key{"connections",
        Kind::count,
        "a number of connections from 1 to 64",
        "Requests at a time",
        "4",
        false,
        {},
        nullptr,
        1,
        64},
    Key{"part_bytes",
        Kind::count,
        "a number of bytes, at least 65536",
        "Bytes of one request",
        "16777216",
        false,
        {},
        nullptr,
        65536,
        1 << 30},
    Key{"ca_file", Kind::text, "a path", "Certificates to trust (PEM) instead of the system's"},
};
constexpr Key kSha256{"sha256", Kind::text, "64 hexadecimal digits",
                      "The SHA-256 that the file must have"};
constexpr std::array kLocalKeys{Key{"path",
                                    Kind::text,
                                    "a path",
                                    "A checkpoint, or a run directory: its newest committed one",
                                    {},
                                    true}};
constexpr std::array kRunKeys{
    Key{"root", Kind::text, "a path", "The directory of all runs; default: save.root"},
    Key{"run_id", Kind::text, "a run's id", "The run's directory under root", {}, true},
    Key{"fork", Kind::flag, "true or false",
        "A new run begins here; otherwise the run is continued", "false"},
    Key{"file", Kind::text, "a file's name",
        "A file in the run's directory; default: its newest committed checkpoint, else last.ckpt"},
};
constexpr std::array kHttpKeys{
    Key{"url", Kind::text, "a URL", "http:// or https://", {}, true},
    kSha256,
    Key{"token_env", Kind::text, "the name of an environment variable",
        "The environment variable that holds a bearer token to send"},
};
constexpr std::array kS3Keys{
    Key{"bucket", Kind::text, "a bucket's name", "The bucket", {}, true},
    Key{"key", Kind::text, "an object's key", "The object", {}, true},
    Key{"region", Kind::text, "a region's name",
        "Default: $AWS_REGION, $AWS_DEFAULT_REGION, the profile's, else us-east-1"},
    Key{"endpoint", Kind::text, "a URL",
        "The server; default: $AWS_ENDPOINT_URL_S3, $AWS_ENDPOINT_URL, else Amazon's"},
    Key{"style", Kind::word, "", "Where the bucket stands: in the path or in the host's name",
        "auto", false, kStyles},
    Key{"profile", Kind::text, "a profile's name",
        "The profile of the shared credentials file; default: the environment's credentials, "
        "then $AWS_PROFILE, else 'default'"},
    Key{"anonymous", Kind::flag, "true or false", "Send no credentials", "false"},
    kSha256,
};
constexpr std::array kHubKeys{
    Key{"repo", Kind::text, "owner/name", "The model's repository", {}, true},
    Key{"revision", Kind::text, "a branch, tag or commit", "Branch, tag or commit", "main"},
    Key{"file", Kind::text, "a file's name",
        "A file, or an index of shards; default: model.safetensors.index.json, else "
        "model.safetensors"},
    Key{"endpoint", Kind::text, "a URL", "The hub", "https://huggingface.co"},
    Key{"token_env", Kind::text, "the name of an environment variable",
        "The environment variable that holds a token; without it none is sent", "HF_TOKEN"},
};
constexpr std::array kSourceTypes{
    TypeRule{"local", kLocalKeys},           TypeRule{"run", kRunKeys},
    TypeRule{"http", kHttpKeys, kFetchKeys}, TypeRule{"https", kHttpKeys, kFetchKeys},
    TypeRule{"s3", kS3Keys, kFetchKeys},     TypeRule{"huggingface", kHubKeys, kFetchKeys},
};

}  // namespace

const BlockRule kSourceRule{{}, kSourceTypes, "local", kFetchKeys, registered_source_types};

}  // namespace cairn::detail

#pragma once

#include <filesystem>
#include <optional>
#include <string_view>

namespace cairn::detail {

/// What the readers of checkpoints tell apart.
enum class Format {
  cairn,        ///< the container
  safetensors,  ///< one file
  index,        ///< a JSON text that names the shards of a model
  torch,        ///< PyTorch's zip file
  pickle,       ///< PyTorch's files from before the zip file, or any other pickle
  dcp,          ///< a directory of PyTorch's distributed checkpoints
  deepspeed,    ///< a directory of DeepSpeed's, with or without the file that names its tag
  megatron,     ///< a directory of Megatron-LM's own format
};

struct FoundFormat {
  Format format = Format::cairn;
  std::filesystem::path path;  ///< the file to read; where a directory is the checkpoint, that
};

/// What a directory was searched for in vain, for errors.
inline constexpr std::string_view kLookedFor =
    "there is no *.safetensors (or *.index.json), no pytorch_model.bin, no .metadata or *.distcp "
    "(PyTorch's distributed checkpoints), no *_model_states.pt, 'zero' or 'latest' that names a "
    "directory (DeepSpeed), no mp_rank_*/model_optim_rng.pt or latest_checkpointed_iteration.txt "
    "(Megatron)";

/// The format of a file or directory, judged by what is in it; only what could be anything is
/// judged by its name. Local. Errors: not_found, io; unsupported, saying what it is instead where
/// that is known; usage (a directory that holds several).
FoundFormat find_format(const std::filesystem::path& path);
/// The same of a directory; nothing where no known file is in it. Errors: io, usage.
std::optional<FoundFormat> find_in_directory(const std::filesystem::path& directory);

}  // namespace cairn::detail

#include "base/sha256.hpp"
#include "pipeline/block.hpp"
#include "pipeline/words.hpp"

namespace cairn::detail {
namespace {

FetchOptions fetch_of(const Block& block) {
  FetchOptions fetch;
  block.take("cache_dir", fetch.cache_dir);
  if (block.find("max_retries") != nullptr) block.take("max_retries", fetch.max_retries);
  block.take("timeout", fetch.timeout);
  block.take("connections", fetch.connections);
  block.take("part_bytes", fetch.part_bytes);
  block.take("ca_file", fetch.ca_file);
  return fetch;
}

std::string sha256_in(const Block& block) {
  std::string text;
  block.take("sha256", text);
  if (text.empty()) return {};
  const auto sha256 = parse_sha256(text);
  if (!sha256) {
    block.place().at("sha256").refuse(*block.find("sha256"), "must be 64 hexadecimal digits");
  }
  return *sha256;
}

HttpSource http_of(const Block& block, std::string_view type) {
  HttpSource source;
  block.take("url", source.url);
  if (!source.url.starts_with(fmt::format("{}://", type)) &&
      !(type == "http" && source.url.starts_with("https://"))) {
    block.place().at("url").refuse(*block.find("url"), fmt::format("must begin with {}://", type));
  }
  source.sha256 = sha256_in(block);
  block.take("token_env", source.token_env);
  source.fetch = fetch_of(block);
  return source;
}

S3Source s3_of(const Block& block) {
  S3Source source;
  block.take("bucket", source.bucket);
  block.take("key", source.key);
  block.take("region", source.region);
  block.take("endpoint", source.endpoint);
  block.take("style", source.style, kStyleWords);
  block.take("profile", source.profile);
  block.take("anonymous", source.anonymous);
  source.sha256 = sha256_in(block);
  source.fetch = fetch_of(block);
  return source;
}

HubSource hub_of(const Block& block) {
  HubSource source;
  block.take("repo", source.repo);
  block.take("revision", source.revision);
  block.take("file", source.file);
  block.take("endpoint", source.endpoint);
  block.take("token_env", source.token_env);
  source.fetch = fetch_of(block);
  return source;
}

CustomSource custom_of(const Block& block, const std::string& type) {
  CustomSource source;
  source.type = type;
  source.fetch = fetch_of(block);
  source.options = texts_of(block);
  return source;
}

}  // namespace

std::map<std::string, std::string> texts_of(const Block& block) {
  std::map<std::string, std::string> texts;
  for (const auto& [key, value] : block.entries()) {
    if (key != "type" && value.type == Value::Type::scalar) texts[key] = value.text;
  }
  return texts;
}

Source source_of(const Block& block) {
  std::string type = "local";
  block.take("type", type);
  if (type == "local") {
    LocalSource source;
    block.take("path", source.path);
    return source;
  }
  if (type == "run") {
    RunSource source;
    block.take("root", source.root);
    block.take("run_id", source.run_id);
    block.take("fork", source.fork);
    block.take("file", source.file);
    return source;
  }
  if (type == "http" || type == "https") return http_of(block, type);
  if (type == "s3") return s3_of(block);
  if (type == "huggingface") return hub_of(block);
  return custom_of(block, type);
}

}  // namespace cairn::detail

#include "sources/request.hpp"

#include <algorithm>
#include <charconv>
#include <mutex>
#include <utility>

#include "base/text.hpp"
#include "base/throw.hpp"
#include "cairn/version.hpp"

namespace cairn::detail {
namespace {

constexpr std::size_t kRefusalBytes = 16 << 10;
constexpr long kBufferBytes = 256 << 10;
constexpr long kMostRedirects = 5;
constexpr std::chrono::milliseconds kConnectTimeout{15'000};

template <class Value>
void set(CURL* easy, CURLoption option, Value value) {
  if (const CURLcode code = curl_easy_setopt(easy, option, value); code != CURLE_OK) {
    fail(Errc::internal, "libcurl refuses option {}: {}", static_cast<int>(option),
         curl_easy_strerror(code));
  }
}

}  // namespace

void prepare_curl() {
  static std::once_flag once;
  std::call_once(once, [] {
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
      fail(Errc::internal, "libcurl cannot be initialised");
    }
  });
}

Request::Request(const Remote& remote, const Ask& ask, Sink sink)
    : sink_(std::move(sink)),
      lines_(nullptr, curl_slist_free_all),
      easy_(curl_easy_init(), curl_easy_cleanup) {
  if (easy_ == nullptr) fail(Errc::io, "out of memory");
  CURL* const easy = easy_.get();
  set(easy, CURLOPT_ERRORBUFFER, error_);
  set(easy, CURLOPT_URL, remote.url.c_str());
  set(easy, CURLOPT_USERAGENT, "cairn/" CAIRN_VERSION_STRING);
  set(easy, CURLOPT_HEADERFUNCTION, &Request::on_header);
  set(easy, CURLOPT_HEADERDATA, static_cast<void*>(this));
  set(easy, CURLOPT_WRITEFUNCTION, &Request::on_body);
  set(easy, CURLOPT_WRITEDATA, static_cast<void*>(this));
  set_headers(remote, ask);
  set_limits(remote, ask);
}

void Request::set_headers(const Remote& remote, const Ask& ask) {
  std::vector<std::string> lines;
  if (remote.headers) lines = remote.headers();
  if (!ask.range.empty()) lines.push_back("Range: bytes=" + ask.range);
  if (!ask.if_range.empty()) lines.push_back("If-Range: " + ask.if_range);
  if (!ask.if_none_match.empty()) lines.push_back("If-None-Match: " + ask.if_none_match);
  for (const std::string& line : lines) {
    curl_slist* const longer = curl_slist_append(lines_.get(), line.c_str());
    if (longer == nullptr) fail(Errc::io, "out of memory");
    static_cast<void>(lines_.release());
    lines_.reset(longer);
  }
  set(easy_.get(), CURLOPT_HTTPHEADER, lines_.get());
}

void Request::set_limits(const Remote& remote, const Ask& ask) {
  CURL* const easy = easy_.get();
  // libcurl gives credentials to the first host only, and does not follow https to http.
  set(easy, CURLOPT_PROTOCOLS_STR, "http,https");
  set(easy, CURLOPT_FOLLOWLOCATION, remote.follow_redirects ? 1L : 0L);
  set(easy, CURLOPT_MAXREDIRS, kMostRedirects);
  const bool secure = lower_case(std::string_view(remote.url).substr(0, 6)) == "https:";
  set(easy, CURLOPT_REDIR_PROTOCOLS_STR, secure ? "https" : "http,https");
  set(easy, CURLOPT_PATH_AS_IS, 1L);  // an object's key may hold "//" and ".."
  if (!remote.ca_file.empty()) set(easy, CURLOPT_CAINFO, remote.ca_file.c_str());
  set(easy, CURLOPT_BUFFERSIZE, kBufferBytes);
  set(easy, CURLOPT_NOSIGNAL, 1L);
  set(easy, CURLOPT_QUICK_EXIT, 1L);  // does not wait for a name server that does not answer
  const auto timeout = std::max(ask.timeout, std::chrono::milliseconds(1));
  set(easy, CURLOPT_TIMEOUT_MS, static_cast<long>(timeout.count()));
  set(easy, CURLOPT_CONNECTTIMEOUT_MS,
      static_cast<long>(std::min(timeout, kConnectTimeout).count()));
  set(easy, CURLOPT_LOW_SPEED_LIMIT, 1L);
  set(easy, CURLOPT_LOW_SPEED_TIME, static_cast<long>(ask.stall.count()));
}

std::string Request::detail(CURLcode code) const {
  return error_[0] != '\0' ? printable(trimmed(error_)) : curl_easy_strerror(code);
}

void Request::read_header(std::string_view line) {
  if (line.starts_with("HTTP/")) {  // of each answer: also of redirects
    std::string commit = std::move(reply_.commit);
    reply_ = Reply();
    reply_.commit = std::move(commit);
    curl_easy_getinfo(easy_.get(), CURLINFO_RESPONSE_CODE, &reply_.status);
    reply_.ends_visibly = line.starts_with("HTTP/2") || line.starts_with("HTTP/3");
    return;
  }
  const auto colon = line.find(':');
  if (colon == std::string_view::npos) return;
  const std::string name = lower_case(line.substr(0, colon));
  const std::string value(trimmed(line.substr(colon + 1)));
  if (name == "etag") reply_.etag = value;
  if (name == "last-modified") reply_.last_modified = value;
  if (name == "content-range") reply_.content_range = value;
  if (name == "retry-after") reply_.retry_after = value;
  if (name == "x-amz-bucket-region") reply_.region = value;
  if (name == "x-repo-commit" && reply_.commit.empty()) reply_.commit = value;
  if (name == "transfer-encoding" && lower_case(value).find("chunked") != std::string::npos) {
    reply_.ends_visibly = true;
  }
  if (name == "content-length") {
    std::uint64_t length = 0;
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), length);
    if (error == std::errc() && end == value.data() + value.size()) reply_.content_length = length;
  }
}

void Request::take(std::span<const std::byte> bytes) {
  if (reply_.status == 200 || reply_.status == 206) {
    sink_(reply_, bytes);
  } else if (refusal_.size() < kRefusalBytes) {
    refusal_.append(reinterpret_cast<const char*>(bytes.data()),
                    std::min(bytes.size(), kRefusalBytes - refusal_.size()));
  }
}

std::size_t Request::on_header(char* data, std::size_t size, std::size_t count, void* self) {
  try {
    static_cast<Request*>(self)->read_header({data, size * count});
    return size * count;
  } catch (...) {
    static_cast<Request*>(self)->failure_ = std::current_exception();
    return 0;
  }
}

std::size_t Request::on_body(char* data, std::size_t size, std::size_t count, void* self) {
  try {
    static_cast<Request*>(self)->take(std::as_bytes(std::span(data, size * count)));
    return size * count;
  } catch (...) {
    static_cast<Request*>(self)->failure_ = std::current_exception();
    return size * count == 0 ? 1 : 0;  // anything but what was offered ends the request
  }
}

}  // namespace cairn::detail

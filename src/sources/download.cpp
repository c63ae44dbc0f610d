// How a file comes over HTTP:
//  1. One request for its first part (and "if it is not the version that I have"). The answer tells
//     the size, the version (ETag, Last-Modified), and whether the server serves parts at all.
//  2. The blocks of the whole file are reserved, so that a full disk is an early error.
//  3. A few connections fetch the other parts, each "if the file is still that version"; without
//     parts, the first request goes on to the end. Parts of a file that has no version, and no
//     digest to tell a mixture by, are not put together: then one request fetches all.
//  4. A request that is cut, or refused in passing, is sent again after a while, from where it was.
//     A file that changes meanwhile is fetched again from its begin: versions never mix.
#include "sources/download.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <limits>
#include <list>
#include <random>
#include <utility>

#include "base/text.hpp"
#include "base/throw.hpp"
#include "sources/failure.hpp"

namespace cairn::detail {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr std::uint64_t kOpen = std::numeric_limits<std::uint64_t>::max();  // until the server ends
constexpr milliseconds kFirstPause{250};
constexpr milliseconds kLongestPause{20'000};
constexpr milliseconds kLook{200};  // how often the deadline and a cancellation are looked at
constexpr seconds kLongestStall{30};

struct Part {
  std::uint64_t at = 0;  ///< what comes next
  std::uint64_t end = 0;
  int failures = 0;  ///< in a row, without a byte between them
  Clock::time_point not_before = {};
  std::unique_ptr<Request> request = {};
  bool head_seen = false;  ///< of this request
};

/// The file is another one than the answers before said.
struct Changed {};
/// Nothing would tell whether the parts are of one version.
struct NoVersion {};

struct ContentRange {
  std::uint64_t begin = 0;
  std::uint64_t total = 0;
};

std::optional<ContentRange> parse_content_range(std::string_view text) {
  ContentRange range;
  std::uint64_t last = 0;
  if (!text.starts_with("bytes ")) return {};
  const char* at = text.data() + 6;
  const char* const end = text.data() + text.size();
  for (const auto& [value, separator] :
       {std::pair(&range.begin, '-'), std::pair(&last, '/'), std::pair(&range.total, '\0')}) {
    const auto [stop, error] = std::from_chars(at, end, *value);
    if (error != std::errc() ||
        (separator == '\0' ? stop != end : stop == end || *stop != separator)) {
      return {};
    }
    at = stop + (separator == '\0' ? 0 : 1);
  }
  if (range.begin > last || last >= range.total) return {};
  return range;
}

milliseconds pause_after(int failures) {
  thread_local std::minstd_rand random(std::random_device{}());
  const auto longest = std::min(kLongestPause, kFirstPause * (1 << std::min(failures - 1, 10)));
  return milliseconds(
      std::uniform_int_distribution<std::int64_t>(longest.count() / 2, longest.count())(random));
}

class Download {
 public:
  Download(const Remote& remote, const File& into, const FetchLimits& limits, const Version& known,
           bool has_digest, FetchState& state)
      : remote_(remote),
        into_(into),
        limits_(limits),
        known_(known),
        has_digest_(has_digest),
        state_(state),
        multi_(curl_multi_init(), curl_multi_cleanup) {
    if (multi_ == nullptr) fail(Errc::io, "out of memory");
    curl_multi_setopt(multi_.get(), CURLMOPT_MAX_TOTAL_CONNECTIONS,
                      static_cast<long>(limits.connections));
    begin();
  }

  ~Download() {
    for (Part& part : parts_) detach(part);
  }

  Downloaded run() {
    while (!parts_.empty() || has_more()) {
      check_deadline(limits_, state_, last_failure_.empty() ? remote_.shown : last_failure_);
      start_due();
      int running = 0;
      curl_multi_perform(multi_.get(), &running);
      finish_ended();
      if (!parts_.empty()) {
        curl_multi_poll(multi_.get(), nullptr, 0, static_cast<int>(patience().count()), nullptr);
      }
    }
    return result_;
  }

 private:
  void begin() {
    parts_.clear();
    next_ = by_ranges_ ? limits_.part_bytes : kOpen;
    parts_.push_back({0, next_});
    started_ = false;
    in_parts_ = by_ranges_;
    state_.done_bytes -= std::exchange(counted_, 0);
    state_.total_bytes -= std::exchange(total_counted_, 0);
    result_ = {};
  }

  /// Whether parts are to come that are not in the list yet.
  bool has_more() const { return started_ && in_parts_ && next_ < result_.size; }

  milliseconds patience() const {
    auto until = std::min(Clock::now() + kLook, limits_.deadline);
    for (const Part& part : parts_) {
      if (part.request == nullptr) until = std::min(until, part.not_before);
    }
    return std::max(std::chrono::duration_cast<milliseconds>(until - Clock::now()),
                    milliseconds(1));
  }

  /// Parts begin when there is a connection for them: a file may have more of them than a list
  /// should hold. One that waits to be sent again keeps its connection, so that a server in trouble
  /// gets no more requests than before.
  void start_due() {
    while (has_more() && parts_.size() < limits_.connections) {
      const std::uint64_t begin = next_;
      next_ += std::min(limits_.part_bytes, result_.size - begin);
      parts_.push_back({begin, next_});
    }
    for (Part& part : parts_) {
      if (part.request == nullptr && part.not_before <= Clock::now()) start(part);
    }
  }

  void start(Part& part) {
    Ask ask;
    ask.timeout = std::chrono::ceil<milliseconds>(limits_.deadline - Clock::now());
    // A connection that is silent must leave time for another one.
    ask.stall = std::clamp(std::chrono::duration_cast<seconds>(limits_.timeout / 10), seconds(1),
                           kLongestStall);
    if (!started_) {
      // Never by the date: If-Modified-Since asks for what is newer, not for what is other.
      if (known_.is_strong()) ask.if_none_match = known_.etag;
    } else {
      const Version& version = result_.version;
      ask.if_range = version.is_strong() ? version.etag : version.last_modified;
    }
    if (in_parts_) ask.range = fmt::format("{}-{}", part.at, part.end - 1);
    part.head_seen = false;
    part.request = std::make_unique<Request>(
        remote_, ask, [this, &part](const Reply& reply, std::span<const std::byte> bytes) {
          if (!std::exchange(part.head_seen, true)) read_head(part, reply);
          write(part, bytes);
        });
    curl_multi_add_handle(multi_.get(), part.request->handle());
  }

  void detach(Part& part) {
    if (part.request == nullptr) return;
    curl_multi_remove_handle(multi_.get(), part.request->handle());
    part.request.reset();
  }

  void write(Part& part, std::span<const std::byte> bytes) {
    if (bytes.size() > part.end - part.at) {
      fail(Errc::io, "{}: the server sends more bytes than were asked for", remote_.shown);
    }
    into_.write_at(part.at, bytes, "cache.write");
    part.at += bytes.size();
    part.failures = in_parts_ ? 0 : part.failures;  // without parts nothing is kept
    state_.done_bytes += bytes.size();
    counted_ += bytes.size();
  }

  /// Whether an answer is of the version that the first one had, as far as it says. Servers that
  /// heed If-Range need not repeat the date.
  bool is_same_version(const Reply& reply) const {
    const Version& version = result_.version;
    const auto differ = [](const std::string& a, const std::string& b) {
      return !a.empty() && !b.empty() && a != b;
    };
    return !differ(reply.etag, version.etag) &&
           (version.is_strong() || !differ(reply.last_modified, version.last_modified));
  }

  /// The headers of an answer with content. Errors: Changed, NoVersion.
  void read_head(Part& part, const Reply& reply) {
    const auto range = parse_content_range(reply.content_range);
    const bool partial = reply.status == 206;
    if (partial && (!range || range->begin != part.at || !by_ranges_)) {
      fail(Errc::io, "{}: the server answers with another part than was asked for ('{}')",
           remote_.shown, printable(reply.content_range));
    }
    if (started_) {
      if (!partial || range->total != result_.size || !is_same_version(reply)) throw Changed();
      return;
    }
    started_ = true;
    in_parts_ = partial;
    result_.version = {reply.etag, reply.last_modified};
    result_.commit = reply.commit;
    if (partial) {
      const bool joinable =
          has_digest_ || result_.version.is_strong() || !result_.version.last_modified.empty();
      if (!joinable && range->total > part.end) throw NoVersion();
      in_parts_ = joinable;  // otherwise this one answer is the file, or nothing is
      learn_size(range->total);
      part.end = std::min(part.end, range->total);
    } else if (reply.content_length) {
      learn_size(*reply.content_length);
      part.end = *reply.content_length;
    } else if (!reply.ends_visibly && !has_digest_) {
      fail(Errc::unsupported,
           "{}: the server does not say how long the file is, so a truncated one would look whole; "
           "give its sha256",
           remote_.shown);
    } else {
      part.end = kOpen;
    }
  }

  void learn_size(std::uint64_t bytes) {
    result_.size = bytes;
    total_counted_ = bytes;
    state_.total_bytes += bytes;
    try {
      into_.reserve(bytes);
    } catch (const Error& error) {
      fail(error.code(), "{}; {} needs {} bytes, or another checkpoint.source.cache_dir",
           error.what(), remote_.shown, bytes);
    }
  }

  void finish_ended() {
    int left = 0;
    while (const CURLMsg* message = curl_multi_info_read(multi_.get(), &left)) {
      if (message->msg != CURLMSG_DONE) continue;
      const CURLcode code = message->data.result;
      const auto part = std::find_if(parts_.begin(), parts_.end(), [&](const Part& candidate) {
        return candidate.request != nullptr && candidate.request->handle() == message->easy_handle;
      });
      if (part != parts_.end() && !finish(part, code)) return;
    }
  }

  /// False when the download begins anew or is over: no other part counts any more.
  bool finish(std::list<Part>::iterator part, CURLcode code) {
    try {
      if (part->request->failure()) std::rethrow_exception(part->request->failure());
      const Reply& reply = part->request->reply();
      const bool content = reply.status == 200 || reply.status == 206;
      if (code == CURLE_OK && content && !std::exchange(part->head_seen, true)) {
        read_head(*part, reply);
      }
      if (content && part->head_seen && is_whole(*part, code)) {
        detach(*part);
        parts_.erase(part);
        return true;
      }
      if (!started_ && code == CURLE_OK && settle_without_content(reply)) return false;
    } catch (const Changed&) {
      begin_anew();
      return false;
    } catch (const NoVersion&) {
      clear();
      by_ranges_ = false;
      begin();
      return false;
    }
    return send_again(*part, code);
  }

  /// Bytes that all came are whole however the transfer ended; the end of a file of unknown length
  /// is where the server ends it.
  bool is_whole(Part& part, CURLcode code) {
    if (part.end != kOpen) return part.at == part.end;
    if (code != CURLE_OK) return false;
    learn_size(part.at);
    return true;
  }

  /// Whether the first answer ends the download without a byte.
  bool settle_without_content(const Reply& reply) {
    const bool unchanged = reply.status == 304 && !known_.etag.empty();
    const bool is_empty = reply.status == 416 && reply.content_range == "bytes */0";
    if (!unchanged && !is_empty) return false;
    clear();
    if (is_empty) learn_size(0);
    result_.unchanged = unchanged;
    result_.version = {reply.etag, reply.last_modified};
    result_.commit = reply.commit;
    return true;
  }

  void clear() {
    for (Part& part : parts_) detach(part);
    parts_.clear();
  }

  void begin_anew() {
    if (restarts_++ >= limits_.max_retries) {
      fail(Errc::io, "{}: it changes on the server faster than it can be fetched", remote_.shown);
    }
    clear();
    begin();
    parts_.front().not_before = Clock::now() + pause_after(restarts_);
  }

  /// Errors: what the request failed with, when it must not be sent again.
  bool send_again(Part& part, CURLcode code) {
    auto failure = explain_failure(remote_, *part.request, code);
    const bool cut = code == CURLE_OK && part.request->reply().status < 300;
    if (cut) {
      failure = {
          Errc::io,
          fmt::format("{}: the answer ended {} bytes too early", remote_.shown, part.end - part.at),
          true,
          {}};
    }
    detach(part);
    last_failure_ = failure.text;
    check_deadline(limits_, state_, last_failure_);
    if (!failure.again || part.failures >= limits_.max_retries) {
      const int sent = part.failures + 1;
      fail(failure.code, "{}{}", failure.text,
           sent > 1 ? fmt::format("; given up after {} requests", sent) : "");
    }
    ++part.failures;
    part.not_before = Clock::now() + std::max<milliseconds>(pause_after(part.failures),
                                                            failure.wait.value_or(seconds(0)));
    if (in_parts_) return true;
    const Part waiting{0, 0, part.failures, part.not_before};
    clear();
    begin();  // a server without parts sends everything again
    parts_.front().failures = waiting.failures;
    parts_.front().not_before = waiting.not_before;
    return false;
  }

  const Remote& remote_;
  const File& into_;
  const FetchLimits& limits_;
  const Version& known_;
  const bool has_digest_;
  FetchState& state_;
  std::list<Part> parts_;  // those that come now; callbacks hold references to parts
  std::unique_ptr<CURLM, decltype(&curl_multi_cleanup)> multi_;
  bool started_ = false;    // an answer with content has come
  bool by_ranges_ = true;   // the first request is for a part
  bool in_parts_ = true;    // what came of a part stays, whatever becomes of its request
  std::uint64_t next_ = 0;  // where the parts begin that are not in the list yet
  int restarts_ = 0;
  std::string last_failure_;
  std::uint64_t counted_ = 0;  // this file's share in state_
  std::uint64_t total_counted_ = 0;
  Downloaded result_;
};

}  // namespace

void check_deadline(const FetchLimits& limits, const FetchState& state, const std::string& what) {
  if (state.cancelled) fail(Errc::timeout, "{}: the fetch was called off", what);
  if (Clock::now() < limits.deadline) return;
  fail(Errc::timeout,
       "{}: not there after {} s ({} of {} bytes came); give pipeline.timeout more seconds", what,
       std::chrono::duration<double>(limits.timeout).count(), state.done_bytes.load(),
       state.total_bytes.load());
}

Downloaded download(const Remote& remote, const File& into, const FetchLimits& limits,
                    const Version& known, bool has_digest, FetchState& state) {
  prepare_curl();
  return Download(remote, into, limits, known, has_digest, state).run();
}

}  // namespace cairn::detail

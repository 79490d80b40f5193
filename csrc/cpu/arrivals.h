// Work that becomes possible as flags turn up, shared among the threads of a rank; and the link
// that sets the flags, which can keep to the timetable of a slower one.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "protocol/endpoint.h"
#include "protocol/host_memory.h"

namespace perfkit::exchange {

using Endpoint = protocol::Endpoint<protocol::HostMemory>;
using protocol::Status;

// `items` pieces of work that need one frame of every source from `first` to `last`, or nobody's.
struct Work {
  std::uint32_t first = 0, last = 0, frame = 0;
  std::int64_t items = 1;
};

class Arrivals {
 public:
  // With `in_order` work is done in the order given, else in that of arrival; the items must be
  // independent of each other, so that their results are the same either way.
  Arrivals(Endpoint& endpoint, std::uint64_t epoch, std::uint32_t subtile, bool in_order)
      : endpoint_(endpoint), epoch_(epoch), subtile_(subtile), in_order_(in_order) {}

  void add(const Work& work, bool waits) {
    if (waits)
      pending_.push_back(work);
    else
      open(work);
  }

  // The next item, or status ok and false when there is none left. Blocks; bounded.
  bool next(Work& work, std::int64_t& item, Status& status) {
    bool over = false;
    Work awaited;
    const auto look = [&] {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (status_ != Status::ok) return true;
      if (!take(work, item)) {
        over = pending_.empty();
        if (!over) awaited = pending_.front();
        return over;
      }
      return true;
    };
    status = look() ? Status::ok : Status::timeout;
    if (status != Status::ok) {
      const auto missing = first_missing(awaited);
      status = endpoint_.wait_until(look, missing, awaited.frame, subtile_);
    }
    const std::lock_guard<std::mutex> lock(mutex_);
    if (status_ == Status::ok) status_ = status;
    status = status_;
    return status_ == Status::ok && !over;
  }

  void fail(Status status) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (status_ == Status::ok) status_ = status;
  }

 private:
  struct Open {
    Work work;
    std::int64_t next;
  };

  void open(const Work& work) {
    if (work.items > 0) open_.push_back({work, 0});
  }
  std::uint32_t first_missing(const Work& work) const {
    for (std::uint32_t source = work.first; source < work.last; ++source)
      if (!here(work, source)) return source;
    return work.first;
  }
  bool here(const Work& work, std::uint32_t source) const {
    return source == endpoint_.rank() ||
           endpoint_.data_ready(source, epoch_, work.frame, subtile_);
  }
  bool ready(const Work& work) const {
    for (std::uint32_t source = work.first; source < work.last; ++source)
      if (!here(work, source)) return false;
    return true;
  }
  bool take(Work& work, std::int64_t& item) {
    if (open_.empty())
      for (std::size_t at = 0; at < pending_.size(); ++at) {
        if (ready(pending_[at])) {
          open(pending_[at]);
          pending_.erase(pending_.begin() + static_cast<std::ptrdiff_t>(at));
          if (!open_.empty()) break;
          at = static_cast<std::size_t>(-1);  // it had no items: look again from the start
        } else if (in_order_) {
          break;
        }
      }
    if (open_.empty()) return false;
    Open& front = open_.front();
    work = front.work;
    item = front.next++;
    if (front.next == front.work.items) open_.pop_front();
    return true;
  }

  Endpoint& endpoint_;
  std::uint64_t epoch_;
  std::uint32_t subtile_;
  bool in_order_;
  std::mutex mutex_;
  Status status_ = Status::ok;
  std::deque<Work> pending_;
  std::deque<Open> open_;
};

// Publishes at once, or (for measurements) when a link of `rate` bytes a second would have
// carried the data: a replay that sleeps, and so takes next to nothing from the processor.
class Link {
 public:
  Link(Endpoint& endpoint, double rate) : endpoint_(endpoint), rate_(rate) {
    if (rate > 0) pacer_ = std::thread([this] { pace(); });
  }
  ~Link() { drain(); }
  Link(const Link&) = delete;
  Link& operator=(const Link&) = delete;

  void publish(std::uint32_t destination, std::uint64_t epoch, std::uint32_t frame,
               std::uint32_t subtile, std::int64_t bytes) {
    if (rate_ <= 0) return endpoint_.publish(destination, epoch, frame, subtile);
    const std::lock_guard<std::mutex> lock(mutex_);
    const std::int64_t now = protocol::HostMemory::now_ns();
    free_at_ = (now > free_at_ ? now : free_at_) +
               static_cast<std::int64_t>(static_cast<double>(bytes) / rate_ * 1e9);
    queue_.push_back({destination, frame, subtile, epoch, free_at_});
    changed_.notify_one();
  }
  // Returns when everything is out.
  void drain() {
    if (!pacer_.joinable()) return;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      closing_ = true;
      changed_.notify_one();
    }
    pacer_.join();
  }

 private:
  struct Message {
    std::uint32_t destination, frame, subtile;
    std::uint64_t epoch;
    std::int64_t due;
  };

  void pace() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      changed_.wait(lock, [this] { return closing_ || !queue_.empty(); });
      if (queue_.empty()) return;
      const Message message = queue_.front();
      queue_.pop_front();
      lock.unlock();
      timespec until{};
      until.tv_sec = static_cast<time_t>(message.due / 1'000'000'000);
      until.tv_nsec = static_cast<long>(message.due % 1'000'000'000);
      while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr) == EINTR) {
      }
      endpoint_.publish(message.destination, message.epoch, message.frame, message.subtile);
      lock.lock();
    }
  }

  Endpoint& endpoint_;
  double rate_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Message> queue_;
  std::int64_t free_at_ = 0;
  bool closing_ = false;
  std::thread pacer_;
};

}  // namespace perfkit::exchange

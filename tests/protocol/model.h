// A weak memory for the model check: what C++ allows a release/acquire/relaxed program to see.
//
// Every location keeps its whole modification order as messages. A thread has a view: how far it
// has got in each location's order. A load may return any message that is not older than its
// view; a release store attaches the thread's view to its message and an acquire load takes that
// view over; a relaxed one does neither (the view-based semantics of Kang et al., POPL 2017,
// without promises: a plain access that is not ordered shows up as a race below, so load
// buffering adds nothing). Plain data are checked for races: a read must know the last write, a
// write must know the last write and every thread's last read of it.
#pragma once

#include <cstdint>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

namespace model {

struct Violation : std::runtime_error {
  using std::runtime_error::runtime_error;
};

using View = std::vector<std::uint16_t>;

struct Message {
  std::uint64_t value = 0;
  View view;
};

inline void join(View& into, const View& other) {
  if (into.size() < other.size()) into.resize(other.size());
  for (std::size_t i = 0; i < other.size(); ++i)
    if (into[i] < other[i]) into[i] = other[i];
}

class Memory {
 public:
  // `numbers` outlives a run: an address must have the same number in all of them, or equal
  // states would look different.
  Memory(int threads, std::map<const void*, int>& numbers)
      : threads_(threads), numbers_(numbers), views_(threads), floors_(threads) {}

  // The number of a location, which holds 0 at first.
  int location(const void* address) {
    const auto found = numbers_.try_emplace(address, static_cast<int>(numbers_.size())).first;
    while (static_cast<int>(order_.size()) <= found->second) {
      order_.emplace_back(1, Message{});
      reads_.emplace_back(threads_, 0);
    }
    return found->second;
  }

  // How many messages a load by this thread may choose from; 0 is the newest.
  int choices(int thread, int location) {
    return static_cast<int>(order_[location].size()) - lowest(thread, location);
  }
  std::uint64_t load(int thread, int location, int choice, bool acquire) {
    const auto stamp = static_cast<int>(order_[location].size()) - 1 - choice;
    const Message& message = order_[location][stamp];
    at(views_[thread], slot(location)) = static_cast<std::uint16_t>(stamp);
    if (acquire) join(views_[thread], message.view);
    return message.value;
  }
  void store(int thread, int location, std::uint64_t value, bool release) {
    const auto stamp = static_cast<std::uint16_t>(order_[location].size());
    at(views_[thread], slot(location)) = stamp;
    Message message{value, {}};
    if (release) message.view = views_[thread];
    at(message.view, slot(location)) = stamp;
    order_[location].push_back(std::move(message));
  }
  bool claim(int thread, int location, std::uint64_t value) {
    if (load(thread, location, 0, true) != 0) return false;  // a CAS sees the newest
    store(thread, location, value, true);
    return true;
  }

  std::uint64_t read_data(int thread, int location) {
    if (seen(thread, slot(location)) != order_[location].size() - 1)
      throw Violation("a plain read races with a write");
    at(views_[thread], read_slot(location, thread)) = ++reads_[location][thread];
    return order_[location].back().value;
  }
  void write_data(int thread, int location, std::uint64_t value) {
    if (seen(thread, slot(location)) != order_[location].size() - 1)
      throw Violation("two plain writes race");
    for (int other = 0; other < threads_; ++other)
      if (seen(thread, read_slot(location, other)) != reads_[location][other])
        throw Violation("a plain write races with a read");
    store(thread, location, value, false);
  }

  // A waiting loop that saw only stale values will see newer ones in the end, if there are any.
  bool has_news(int thread, const std::vector<int>& locations) {
    for (int location : locations)
      if (seen(thread, slot(location)) + 1u < order_[location].size()) return true;
    return false;
  }
  void take_news(int thread, const std::vector<int>& locations) {
    for (int location : locations)
      if (seen(thread, slot(location)) + 1u < order_[location].size())
        at(floors_[thread], location) =
            static_cast<std::uint16_t>(seen(thread, slot(location)) + 1);
  }

  // Everything that the future can depend on; messages that nobody can load any more are left out.
  void describe(std::string& out) const {
    const auto put = [&](const View& view) {
      std::size_t size = view.size();
      while (size > 0 && view[size - 1] == 0) --size;
      out.append(reinterpret_cast<const char*>(view.data()), size * sizeof(view[0]));
      out += '|';
    };
    for (const View& view : views_) put(view);
    for (const View& view : floors_) put(view);
    for (std::size_t location = 0; location < order_.size(); ++location) {
      const auto& messages = order_[location];
      if (messages.size() == 1) continue;
      std::size_t oldest = messages.size();
      for (int thread = 0; thread < threads_; ++thread) {
        const auto low = static_cast<std::size_t>(lowest(thread, static_cast<int>(location)));
        oldest = low < oldest ? low : oldest;
      }
      out.append(reinterpret_cast<const char*>(&location), sizeof location);
      out.append(reinterpret_cast<const char*>(&oldest), sizeof oldest);
      for (std::size_t stamp = oldest; stamp < messages.size(); ++stamp) {
        out.append(reinterpret_cast<const char*>(&messages[stamp].value), sizeof(std::uint64_t));
        put(messages[stamp].view);
      }
      out += '/';
    }
  }

 private:
  // Views number each location's order, then each thread's reads of it.
  std::size_t slot(int location) const {
    return static_cast<std::size_t>(location) * (threads_ + 1);
  }
  std::size_t read_slot(int location, int thread) const { return slot(location) + 1 + thread; }
  static std::uint16_t& at(View& view, std::size_t index) {
    if (view.size() <= index) view.resize(index + 1);
    return view[index];
  }
  std::uint16_t seen(int thread, std::size_t index) const {
    return index < views_[thread].size() ? views_[thread][index] : std::uint16_t{0};
  }
  int lowest(int thread, int location) const {
    const std::size_t index = static_cast<std::size_t>(location);
    const int floor = index < floors_[thread].size() ? floors_[thread][index] : 0;
    const int view = seen(thread, slot(location));
    return floor > view ? floor : view;
  }

  int threads_;
  std::map<const void*, int>& numbers_;
  std::vector<std::vector<Message>> order_;
  std::vector<std::vector<std::uint16_t>> reads_;
  std::vector<View> views_, floors_;
};

}  // namespace model

// Runs programs of several threads under every schedule and every choice of the weak memory.
//
// Threads are stackful fibers. A run follows a list of choices; depth-first search changes the
// last choice that has an alternative and runs again from the start. A run that reaches a state
// seen before is cut. What a thread will do depends on what it has read, so a state is the
// memory, the views, and a hash of every thread's results; a waiting loop that has to go round
// again forgets the results of its round.
#pragma once

#include <ucontext.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <unordered_set>
#include <vector>

#include "model.h"

namespace model {

class Explorer {
 public:
  using Program = std::function<void(int thread)>;

  Explorer(int threads, Program program) : threads_(threads), program_(std::move(program)) {}

  int victim = -1;        // this thread may stop for ever before any of its steps
  bool timeouts = false;  // when nobody can move, a waiting thread runs out of patience

  // The first violation, or "" when there is none in any execution.
  std::string explore() {
    self() = this;
    std::string found;
    for (bool more = true; more && found.empty(); more = next()) found = run();
    self() = nullptr;
    return found;
  }
  std::size_t states() const { return visited_.size(); }
  std::size_t runs() const { return runs_; }

  // --- called by the threads of the program -------------------------------------------------
  static Explorer& current() { return *self(); }
  Memory& memory() { return *memory_; }
  int thread() const { return running_; }

  // Lets others go first; returns when the scheduler has chosen this thread.
  void step() {
    fibers_[running_].waiting = false;
    yield();
  }
  int choose(int count) {
    if (count <= 1) return 0;
    if (depth_ == path_.size()) path_.push_back({0, count});
    return path_[depth_++].chosen;
  }
  void record(std::uint64_t result) {
    std::uint64_t& hash = fibers_[running_].history;
    hash = (hash ^ result) * 0x100000001b3ull + 0x9e3779b97f4a7c15ull;
    hash ^= hash >> 29;
  }
  void note_load(int location) { fibers_[running_].polled.push_back(location); }
  void start_waiting() {
    fibers_[running_].loop_start = fibers_[running_].history;
    fibers_[running_].polled.clear();
  }
  // One more round of a waiting loop; false when its patience is over.
  bool wait_again() {
    Fiber& fiber = fibers_[running_];
    fiber.history = fiber.loop_start;
    fiber.waiting = true;
    yield();
    fiber.waiting = false;
    if (fiber.timed_out) return false;
    memory_->take_news(running_, fiber.polled);
    fiber.polled.clear();
    return true;
  }

 private:
  struct Fiber {
    ucontext_t context;
    std::unique_ptr<char[]> stack;
    std::uint64_t history = 0, loop_start = 0;
    std::vector<int> polled;
    bool started = false, waiting = false, timed_out = false, finished = false;
  };
  struct Choice {
    int chosen, count;
  };
  static constexpr std::size_t kStack = 64 << 10;

  static Explorer*& self() {
    static Explorer* explorer = nullptr;
    return explorer;
  }
  void yield() { swapcontext(&fibers_[running_].context, &scheduler_); }

  static void enter() {
    Explorer& explorer = current();
    try {
      explorer.program_(explorer.running_);
    } catch (const Violation& violation) {
      explorer.violation_ = violation.what();
    }
    explorer.fibers_[explorer.running_].finished = true;
    explorer.yield();
  }

  bool next() {
    while (!path_.empty() && path_.back().chosen + 1 == path_.back().count) path_.pop_back();
    if (path_.empty()) return false;
    ++path_.back().chosen;
    return true;
  }

  std::string run() {
    ++runs_;
    depth_ = 0;
    violation_.clear();
    memory_ = std::make_unique<Memory>(threads_, numbers_);
    fibers_.resize(threads_);
    for (Fiber& fiber : fibers_) {
      if (!fiber.stack) fiber.stack = std::make_unique<char[]>(kStack);
      fiber.history = fiber.loop_start = 0;
      fiber.polled.clear();
      fiber.started = fiber.waiting = fiber.timed_out = fiber.finished = false;
      getcontext(&fiber.context);
      fiber.context.uc_stack.ss_sp = fiber.stack.get();
      fiber.context.uc_stack.ss_size = kStack;
      fiber.context.uc_link = nullptr;
      makecontext(&fiber.context, &Explorer::enter, 0);
    }
    for (;;) {
      std::vector<int> able, stuck;
      for (int thread = 0; thread < threads_; ++thread) {
        const Fiber& fiber = fibers_[thread];
        if (fiber.finished) continue;
        const bool can = !fiber.waiting || memory_->has_news(thread, fiber.polled);
        (can ? able : stuck).push_back(thread);
      }
      if (able.empty() && stuck.empty()) return "";
      if (able.empty()) {
        if (!timeouts) return "deadlock";
        running_ = stuck[choose(static_cast<int>(stuck.size()))];
        fibers_[running_].timed_out = true;
      } else {
        running_ = able[choose(static_cast<int>(able.size()))];
        if (running_ == victim && choose(2) == 1) {
          fibers_[running_].finished = true;
          continue;
        }
      }
      fibers_[running_].started = true;
      swapcontext(&scheduler_, &fibers_[running_].context);
      if (!violation_.empty()) return violation_;
      // A state that was seen is cut, except while replaying what led to the new choice.
      if (depth_ == path_.size() && !visited_.insert(describe()).second) return "";
    }
  }

  std::string describe() {
    std::string text;
    for (const Fiber& fiber : fibers_) {
      text.append(reinterpret_cast<const char*>(&fiber.history), sizeof fiber.history);
      text += static_cast<char>(fiber.started | fiber.waiting << 1 | fiber.timed_out << 2 |
                                fiber.finished << 3);
    }
    memory_->describe(text);
    // Two independent hashes: 128 bits make a collision among a few million states absurd.
    const std::size_t first = std::hash<std::string>{}(text);
    text += 'x';
    const std::size_t second = std::hash<std::string>{}(text);
    std::string key(16, '\0');
    key.replace(0, 8, reinterpret_cast<const char*>(&first), 8);
    key.replace(8, 8, reinterpret_cast<const char*>(&second), 8);
    return key;
  }

  int threads_;
  Program program_;
  std::vector<Fiber> fibers_;
  std::map<const void*, int> numbers_;
  std::unique_ptr<Memory> memory_;
  ucontext_t scheduler_{};
  int running_ = 0;
  std::vector<Choice> path_;
  std::size_t depth_ = 0;
  std::unordered_set<std::string> visited_;
  std::size_t runs_ = 0;
  std::string violation_;
};

}  // namespace model

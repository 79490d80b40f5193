// The model check: the real Endpoint over the model's memory, every execution of a few operations.
//
//   check <scenario> <plant>      prints the result; status 0 when no execution is wrong
//
// Scenarios: push and pull, both ways or one way (where only the acks order reuse; both ways the
// other direction's flags do it too), three (a ring of three ranks), killed (a rank may stop
// anywhere). Plants weaken one step.
#include <cstdio>
#include <cstring>
#include <iterator>
#include <string>
#include <vector>

#include "explore.h"
#include "protocol/endpoint.h"

namespace {

using namespace perfkit::protocol;
using model::Explorer;
using model::Violation;

const char* const kPlants[] = {
    "none",
    "flag stored without release",
    "flag loaded without acquire",
    "ack stored without release",
    "ack loaded without acquire",
    "no wait for the ack",
    "ack before the data are read",
    "flag before the data are written",
};

struct Scenario {
  const char* name;
  int ranks, epochs, frames;
  bool push, ring, killed;
};
const Scenario kScenarios[] = {
    {"push", 2, 4, 1, true, false, false},   {"pull", 2, 4, 1, false, false, false},
    {"push one way", 2, 4, 2, true, true, false}, {"pull one way", 2, 4, 2, false, true, false},
    {"three", 3, 2, 1, true, true, false},
    {"killed", 2, 3, 1, true, false, true},
};

// What the memory under test is told; a model check is one process that checks one thing.
struct Setup {
  Layout layout;
  int plant = 0;
  bool failures = false;
  char* bases[4] = {};
};
Setup setup;

bool is_flag(const Word& word) {
  for (std::uint32_t rank = 0; rank < setup.layout.ranks; ++rank) {
    const auto* base = setup.bases[rank];
    const auto* at = reinterpret_cast<const char*>(&word);
    if (at >= base && at < base + setup.layout.bytes())
      return at >= base + setup.layout.flags() && at < base + setup.layout.acks();
  }
  return false;
}
bool is_ack(const Word& word) {
  for (std::uint32_t rank = 0; rank < setup.layout.ranks; ++rank) {
    const auto* base = setup.bases[rank];
    const auto* at = reinterpret_cast<const char*>(&word);
    if (at >= base && at < base + setup.layout.bytes())
      return at >= base + setup.layout.acks() && at < base + setup.layout.data();
  }
  return false;
}

struct ModelMemory {
  static std::uint64_t load(const Word& word, bool acquire) {
    Explorer& run = Explorer::current();
    // Nobody writes the abort word where nobody fails: when it is read makes no difference.
    if (setup.failures || is_flag(word) || is_ack(word)) run.step();
    const int location = run.memory().location(&word);
    const int choice = run.choose(run.memory().choices(run.thread(), location));
    const std::uint64_t value = run.memory().load(run.thread(), location, choice, acquire);
    run.note_load(location);
    run.record(value);
    return value;
  }
  static void store(Word& word, std::uint64_t value, bool release) {
    Explorer& run = Explorer::current();
    run.step();
    run.memory().store(run.thread(), run.memory().location(&word), value, release);
    run.record(1);
  }

  // Epochs are private to their rank: no schedule can tell when they are touched.
  static std::uint64_t load_relaxed(const Word& word) { return word.value; }
  static void store_relaxed(Word& word, std::uint64_t value) { word.value = value; }

  static std::uint64_t load_acquire(const Word& word) {
    const bool weak = (setup.plant == 2 && is_flag(word)) || (setup.plant == 4 && is_ack(word));
    return load(word, !weak);
  }
  static void store_release(Word& word, std::uint64_t value) {
    const bool weak = (setup.plant == 1 && is_flag(word)) || (setup.plant == 3 && is_ack(word));
    store(word, value, !weak);
  }
  static bool claim(Word& word, std::uint64_t value) {
    Explorer& run = Explorer::current();
    run.step();
    const bool first =
        run.memory().claim(run.thread(), run.memory().location(&word), value);
    run.record(first);
    return first;
  }

  class Wait {
   public:
    explicit Wait(std::int64_t) { Explorer::current().start_waiting(); }
    bool again(Word&, std::uint64_t) { return Explorer::current().wait_again(); }
  };
};

// Plain accesses are no scheduling points: whether two of them race does not depend on which of
// them happens to run first.
void write_data(char* at, std::uint64_t value) {
  Explorer& run = Explorer::current();
  run.memory().write_data(run.thread(), run.memory().location(at), value);
  run.record(2);
}
void read_data(char* at, std::uint64_t wanted) {
  Explorer& run = Explorer::current();
  if (run.memory().read_data(run.thread(), run.memory().location(at)) != wanted)
    throw Violation("the data of another operation were read");
  run.record(3);
}

void rank_program(const Scenario& scenario, int thread) {
  const auto ranks = static_cast<std::uint32_t>(scenario.ranks);
  const auto me_rank = static_cast<std::uint32_t>(thread);
  // In a ring a rank sends to the next and receives from the one before; with two ranks and one
  // direction only rank 0 sends.
  const bool one_way = scenario.ring && ranks == 2;
  const std::uint32_t to = (me_rank + 1) % ranks, from = (me_rank + ranks - 1) % ranks;
  const bool sends = !one_way || me_rank == 0, receives = !one_way || me_rank == 1;
  Endpoint<ModelMemory> me(setup.layout, me_rank, setup.bases, 1);
  reinterpret_cast<Header*>(setup.bases[thread])->epoch.value = 0;

  for (int step = 0; step < scenario.epochs; ++step) {
    const std::uint64_t epoch = me.begin();
    if (sends) {
      if (setup.plant != 5 && me.wait_free(to, epoch) != Status::ok) return;
      for (int frame = 0; frame < scenario.frames; ++frame) {
        char* at = (scenario.push ? me.data(to, epoch, me_rank * 8) : me.data(me_rank, epoch, to * 8))
                   + frame * 64;
        if (setup.plant == 7) me.publish(to, epoch, frame, 0);
        write_data(at, epoch * 16 + me_rank);
        if (setup.plant != 7) me.publish(to, epoch, frame, 0);
      }
    }
    if (!receives) continue;
    for (int frame = 0; frame < scenario.frames; ++frame) {
      if (me.wait_data(from, epoch, frame, 0) != Status::ok) return;
      char* at = (scenario.push ? me.data(me_rank, epoch, from * 8) : me.data(from, epoch, me_rank * 8))
                 + frame * 64;
      if (setup.plant == 6 && frame + 1 == scenario.frames) me.acknowledge(from, epoch);
      read_data(at, epoch * 16 + from);
    }
    if (setup.plant != 6) me.acknowledge(from, epoch);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  for (const Scenario& scenario : kScenarios) {
    if (std::strcmp(scenario.name, argv[1]) != 0) continue;
    setup.plant = std::atoi(argv[2]);
    if (setup.plant < 0 || setup.plant >= static_cast<int>(std::size(kPlants))) return 2;
    setup.layout.ranks = static_cast<std::uint32_t>(scenario.ranks);
    setup.layout.frames = static_cast<std::uint32_t>(scenario.frames);
    setup.layout.slot_bytes = 256;
    std::vector<std::vector<Header>> heaps(scenario.ranks);
    for (int rank = 0; rank < scenario.ranks; ++rank) {
      heaps[rank].resize(setup.layout.bytes() / sizeof(Header) + 1);
      setup.bases[rank] = reinterpret_cast<char*>(heaps[rank].data());
    }
    Explorer explorer(scenario.ranks, [&](int thread) { rank_program(scenario, thread); });
    explorer.timeouts = setup.failures = scenario.killed;
    explorer.victim = scenario.killed ? 1 : -1;
    const std::string found = explorer.explore();
    std::printf("%s, %s: %s (%zu states, %zu runs)\n", scenario.name, kPlants[setup.plant],
                found.empty() ? "every execution is right" : found.c_str(), explorer.states(),
                explorer.runs());
    return found.empty() ? 0 : 1;
  }
  return 2;
}

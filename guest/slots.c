/* The table of kept commands. Process 1 gives each session a place in it, with a socket by which later sessions pass
   connections on to that one if it has become a keeper. Process 1 itself reads nothing from either. */
#define _GNU_SOURCE
#include "kept.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

int own_slot = -1, own_control = -1;

static struct slot *slots;
static pthread_mutex_t *lock;
static uint8_t *rings; /* pages that no output has reached take no memory */
static pid_t sessions[MAX_SESSIONS];
static int controls[MAX_SESSIONS]; /* our ends; -1: none */

static void *shared(size_t size) {
  void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return memory == MAP_FAILED ? NULL : memory;
}

static pthread_mutex_t *make_lock(void) {
  pthread_mutex_t *made = shared(sizeof *made);
  pthread_mutexattr_t kind;
  if (!made || pthread_mutexattr_init(&kind)) return NULL;
  int error = pthread_mutexattr_setpshared(&kind, PTHREAD_PROCESS_SHARED);
  if (!error) error = pthread_mutexattr_setrobust(&kind, PTHREAD_MUTEX_ROBUST);
  if (!error) error = pthread_mutex_init(made, &kind);
  return error ? NULL : made;
}

int lock_slots(void) {
  struct timespec until;
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_sec += LOCK_MS / 1000;
  int error = pthread_mutex_timedlock(lock, &until);
  return error == EOWNERDEAD ? pthread_mutex_consistent(lock) : error;
}

void unlock_slots(void) { pthread_mutex_unlock(lock); }

void make_slots(void) {
  rings = shared((size_t)MAX_SESSIONS * RING_MEMORY);
  lock = rings ? make_lock() : NULL;
  slots = lock ? shared(MAX_SESSIONS * sizeof *slots) : NULL; /* without these, no command is kept */
  for (int at = 0; at < MAX_SESSIONS; at++) controls[at] = -1;
}

struct slot *slot_at(int at) { return slots && at >= 0 ? &slots[at] : NULL; }

int control_of(int slot) { return atomic_load(&slots[slot].has_keeper) ? controls[slot] : -1; }

struct ring ring_of(int slot) { return ring_at(rings + (size_t)slot * RING_MEMORY); }

/* Its memory is the container's again. */
static void clear(int at) {
  atomic_store(&slots[at].state, STATE_NONE);
  if (slots[at].status.end) madvise(rings + (size_t)at * RING_MEMORY, RING_MEMORY, MADV_REMOVE);
  slots[at].status.end = 0;
}

uint64_t unix_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static int has_ended(const struct slot *slot) {
  uint8_t state = atomic_load(&slot->state);
  return state == STATE_EXITED || state == STATE_LOST;
}

int is_listed(const struct slot *slot) {
  if (has_ended(slot)) return slot->status.ended_ms + KEEP_MS > unix_ms();
  return atomic_load(&slot->state) == STATE_RUNNING;
}

int count_running(void) {
  int count = 0;
  for (int at = 0; slots && at < MAX_SESSIONS; at++) count += atomic_load(&slots[at].state) == STATE_RUNNING;
  return count;
}

int find_slot(const uint8_t *id) {
  for (int at = 0; slots && at < MAX_SESSIONS; at++)
    if (is_listed(&slots[at]) && !memcmp(slots[at].id, id, ID_BYTES)) return at;
  return -1;
}

/* A place without a process; one that still tells of an ended command only if no other is left, the oldest first. */
static int free_place(void) {
  int best = -1;
  for (int at = 0; at < MAX_SESSIONS; at++) {
    if (sessions[at]) continue;
    if (!slots || !has_ended(&slots[at])) return at;
    if (best < 0 || slots[at].status.ended_ms < slots[best].status.ended_ms) best = at;
  }
  return best;
}

int take_slot(int *theirs) {
  int at = free_place(), pair[2];
  *theirs = -1;
  if (at < 0) return -1;
  if (slots) clear(at);
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0) {
    controls[at] = pair[0];
    *theirs = pair[1];
  }
  return at;
}

void name_session(int slot, pid_t pid) {
  sessions[slot] = pid > 0 ? pid : 0;
  if (pid > 0 || controls[slot] < 0) return;
  close(controls[slot]);
  controls[slot] = -1;
}

void forget_session(pid_t pid) {
  for (int at = 0; at < MAX_SESSIONS; at++) {
    if (sessions[at] != pid) continue;
    name_session(at, 0);
    if (slots) atomic_store(&slots[at].has_keeper, 0);
    if (!slots || atomic_load(&slots[at].state) != STATE_RUNNING) continue;
    slots[at].status.ended_ms = unix_ms();
    atomic_store(&slots[at].state, STATE_LOST);
  }
}

void forget_ended(int left, uint64_t bytes) {
  for (;;) {
    int count = 0, oldest = -1;
    uint64_t kept = 0;
    for (int at = 0; slots && at < MAX_SESSIONS; at++) {
      if (atomic_load(&slots[at].has_keeper) || !has_ended(&slots[at])) continue;
      count++;
      kept += slots[at].status.end - slots[at].status.first;
      if (oldest < 0 || slots[at].status.ended_ms < slots[oldest].status.ended_ms) oldest = at;
    }
    if (oldest < 0 || (count <= left && kept <= bytes)) return;
    clear(oldest);
  }
}

void become_keeper(void) {
  for (int at = 0; at < MAX_SESSIONS; at++) {
    if (controls[at] >= 0) close(controls[at]);
    controls[at] = -1;
  }
}

static void put_u64(uint8_t *to, uint64_t value) {
  put_u32(to, (uint32_t)(value >> 32));
  put_u32(to + 4, (uint32_t)value);
}

void put_status(uint8_t to[STATUS_BYTES], uint8_t state, const struct status *status) {
  to[0] = state;
  to[1] = status->flags;
  to[2] = status->signal;
  put_u32(to + 3, status->code);
  put_u32(to + 7, status->pid);
  put_u32(to + 11, status->cpu_ms);
  put_u64(to + 15, status->started_ms);
  put_u64(to + 23, status->ended_ms);
  put_u64(to + 31, status->first);
  put_u64(to + 39, status->end);
}

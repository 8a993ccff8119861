/* Commands that outlive the connection that started them. Each has a keeper: the session that started it goes on as the
   process that writes its output to memory that process 1 shares with all sessions, and serves later connections. When
   the command has ended, the keeper leaves, and sessions serve its output from there. */
#ifndef KEPT_H
#define KEPT_H

#include "guest.h"

enum {
  ID_BYTES = 16,
  NOTE_BYTES = 1024,              /* what the host wants to be shown in the list */
  STATUS_BYTES = 47,
  RING_BYTES = 1 << 20,           /* of a command's output, the last of which are kept */
  MAX_KEPT = 64,                  /* kept commands that run, so that sessions are left for other requests */
  MAX_ENDED = 32,                 /* kept commands that have ended, once another starts */
  MAX_ENDED_BYTES = 8 << 20,      /* of their output */
  KEEP_MS = 10 * 60 * 1000,       /* how long each of them is kept */
  MAX_READERS = 8,                /* connections of one command */
  MAX_FIRST_INPUT = MAX_FRAME + 64, /* with the heads of its frames */
  LOCK_MS = 2000,                 /* how long a start waits for another one */
  STALL_MS = 5000,                /* how long a reader that takes nothing holds up its command */
};

/* Frames of kept commands, beside those of all commands. */
enum {
  FRAME_ATTACH = 'A', FRAME_LIST = 'L', FRAME_KILL = 'D', FRAME_QUERY = 'Q',
  FRAME_STATUS = 'K', FRAME_GAP = 'G', FRAME_ENTRY = 'C', FRAME_LIST_END = '.',
};
enum { AT_COMMAND = 'c' }; /* no such command, or there is one with that id */

enum { STATE_NONE = 0, STATE_RUNNING = 'r', STATE_EXITED = 'x', STATE_LOST = 'l' };
enum { IS_TERMINAL = 1, INPUT_IS_OPEN = 2, INPUT_WAS_DROPPED = 4, IS_LATE = 8 };

struct status {
  uint8_t flags, signal;
  uint32_t code, pid, cpu_ms;
  uint64_t started_ms, ended_ms; /* since 1970 */
  uint64_t first, end;           /* offsets of the output that is kept */
};

struct slot { /* in shared memory: written by its keeper, and by process 1 once that is dead */
  _Atomic uint8_t state, has_keeper;
  uint8_t id[ID_BYTES];
  struct status status;
  uint16_t note_length;
  uint8_t note[NOTE_BYTES];
};

/* slots.c. A session inherits the table, its own place in it, and process 1's ends of the keepers' sockets. */
extern int own_slot, own_control;
void make_slots(void);
/* Process 1: a place for a session, or -1; its end of the new socket is in *theirs, -1 if it cannot be kept. */
int take_slot(int *theirs);
void name_session(int slot, pid_t pid);
void forget_session(pid_t pid);
/* Forget ended commands, the oldest first, until this many are left. */
void forget_ended(int left, uint64_t bytes);
struct slot *slot_at(int at);           /* NULL without a table */
int find_slot(const uint8_t *id);       /* -1: none */
int count_running(void);
/* Starts come one after the other, so that of two with one id the second finds the first. 0, or an errno: its holder may
   be stopped, but one that is killed holds nothing. */
int lock_slots(void);
void unlock_slots(void);
int is_listed(const struct slot *slot);
int control_of(int slot);               /* -1: it has no keeper */
struct ring ring_of(int slot);          /* empty memory until its keeper writes */
void become_keeper(void);               /* closes what only process 1 and new sessions need */
uint64_t unix_ms(void);
void put_status(uint8_t to[STATUS_BYTES], uint8_t state, const struct status *status);

/* ring.c: the last RING_BYTES of both streams in one sequence, by offsets in the bytes of both. */
struct ring {
  uint8_t *bytes, *kinds; /* a bit of `kinds` says that the byte came from standard error */
  uint64_t first, end;
};
enum { RING_MEMORY = RING_BYTES + RING_BYTES / 8 };
struct ring ring_at(uint8_t *memory);
void add_output(struct ring *ring, const uint8_t *bytes, size_t length, int is_error);
/* Copies at most `room` bytes of one stream from this offset on, which the ring holds. */
size_t copy_output(const struct ring *ring, uint64_t from, uint8_t *to, size_t room, int *is_error);

/* keeper.c */
void keep(int connection, struct input *input, const struct request *request) __attribute__((noreturn));

/* attach.c */
handler serve_attach, serve_list;

#endif

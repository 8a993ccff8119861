/* The keeper of one command, until that has ended and nobody reads: it stores the last of its output, and serves every
   connection that asks for it. */
#define _GNU_SOURCE
#include "kept.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { DRAIN_BYTES = 2 << 20 }; /* what is read at most once the command has ended: its children may write for ever */

struct reader {
  int connection; /* -1: none */
  uint64_t number; /* of the connection, in the order in which they came */
  int is_silent;  /* gets no output */
  int has_dropped_input, queries, has_end;
  int is_pending; /* its connection has ended, but the command has not read all of its input */
  uint64_t position; /* of the output that it gets next */
  int64_t progress;  /* when it last took something */
  struct input input;
  uint8_t frame[5 + MAX_CHUNK]; /* on its way */
  size_t at, until;
};

static struct {
  struct command command;
  struct ring ring;
  struct slot *slot;
  struct status status;
  int64_t deadline, leaves; /* 0: none */
  size_t drained;
  int is_over; /* it has ended, and its output is whole */
  struct reader readers[MAX_READERS];
  struct reader *typing; /* whose first frame is partly written to the command's input */
  size_t typed_left; /* of that frame: what the command has not read */
  uint64_t admitted; /* connections so far */
} keeper;

static uint8_t chunk[MAX_CHUNK];

/* Input ------------------------------------------------------------------------------------------------- */

static void close_input(void) {
  if (keeper.command.is_terminal || keeper.command.input < 0) return; /* a terminal's input is its output, too */
  close(keeper.command.input);
  keeper.command.input = -1;
}

static void hang_up(struct reader *reader) {
  if (reader->connection >= 0) close(reader->connection);
  free(reader->input.data);
  if (keeper.typing == reader) keeper.typing = NULL, keeper.typed_left = 0;
  reader->connection = -1;
  reader->is_pending = 0;
}

static int has_whole_frame(const struct reader *reader) {
  char type;
  const uint8_t *payload;
  size_t length;
  return next_frame(&reader->input, &type, &payload, &length) > 0;
}

/* The host has said all. What it said still counts. */
static void end_of_input(struct reader *reader) {
  if (!has_whole_frame(reader)) {
    hang_up(reader);
    return;
  }
  close(reader->connection);
  reader->connection = -1;
  reader->is_pending = 1;
}

static int is_in_use(const struct reader *reader) {
  return reader->connection >= 0 || reader->is_pending;
}

static int has_more(const struct reader *reader) {
  char byte;
  return reader->connection >= 0 && recv(reader->connection, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

/* Input is passed on in the order in which its connections were made, whichever place each of them has here. */
static int is_its_turn(const struct reader *reader) {
  if (keeper.typing) return 0;
  for (int at = 0; at < MAX_READERS; at++) {
    const struct reader *other = &keeper.readers[at];
    if (is_in_use(other) && other->number < reader->number && (has_whole_frame(other) || has_more(other))) return 0;
  }
  return 1;
}

/* Whether the first frame of input is done with. */
static int type_on(void) {
  struct reader *reader = keeper.typing;
  char type;
  const uint8_t *payload;
  size_t length;
  next_frame(&reader->input, &type, &payload, &length);
  if (keeper.command.input < 0) {
    reader->has_dropped_input = 1;
    keeper.typed_left = 0;
  }
  while (keeper.typed_left) {
    ssize_t written = write(keeper.command.input, payload + length - keeper.typed_left, keeper.typed_left);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0 && errno == EAGAIN) return 0;
    if (written < 0) { /* it reads no more */
      reader->has_dropped_input = 1;
      keeper.typed_left = 0;
      close_input();
    } else {
      keeper.typed_left -= (size_t)written;
    }
  }
  keeper.typing = NULL;
  drop_frame(&reader->input);
  return 1;
}

static void end_command(void) {
  kill_tree(&keeper.command);
  if (keeper.command.has_ended) return;
  keeper.command.has_ended = 1;
  keeper.command.status = 9; /* it waits in the kernel; its end is certain */
}

static void obey(struct reader *reader) {
  char type;
  const uint8_t *payload;
  size_t length;
  int known;
  while (keeper.typing != reader && (known = next_frame(&reader->input, &type, &payload, &length)) != 0) {
    if (known < 0) {
      hang_up(reader);
      return;
    }
    if ((type == FRAME_INPUT || type == FRAME_INPUT_END) && !is_its_turn(reader)) return;
    if (type == FRAME_INPUT) {
      keeper.typing = reader;
      keeper.typed_left = length;
      if (!type_on()) return;
      continue;
    }
    if (type == FRAME_INPUT_END) close_input();
    if (type == FRAME_SIGNAL && length == 1 && !keeper.command.has_ended) kill(-keeper.command.pid, payload[0]);
    if (type == FRAME_WINDOW && length == 4 && keeper.command.input >= 0)
      set_window(&keeper.command, (uint16_t)(payload[0] << 8 | payload[1]), (uint16_t)(payload[2] << 8 | payload[3]));
    if (type == FRAME_KILL) end_command();
    if (type == FRAME_QUERY && reader->queries < MAX_CHUNK) reader->queries++;
    drop_frame(&reader->input);
  }
}

static struct reader *first_after(uint64_t number) {
  struct reader *first = NULL;
  for (int at = 0; at < MAX_READERS; at++) {
    struct reader *reader = &keeper.readers[at];
    if (is_in_use(reader) && reader->number > number && (!first || reader->number < first->number)) first = reader;
  }
  return first;
}

static void obey_all(void) {
  struct reader *reader;
  for (uint64_t number = 0; (reader = first_after(number)); number = reader->number) {
    obey(reader);
    if (reader->is_pending && (keeper.is_over || !has_whole_frame(reader))) hang_up(reader);
  }
}

static void hear(struct reader *reader) {
  ssize_t got = fill(&reader->input, reader->connection);
  if (got > 0) obey(reader);
  else if (got == 0) end_of_input(reader);
  else if (errno != EAGAIN && errno != EINTR) hang_up(reader);
}

/* Output ------------------------------------------------------------------------------------------------ */

static size_t status_frame(uint8_t *payload, const struct reader *reader) {
  struct status *status = &keeper.status;
  const struct command *command = &keeper.command;
  status->flags = (uint8_t)((command->is_terminal ? IS_TERMINAL : 0) | (command->input >= 0 ? INPUT_IS_OPEN : 0) |
                            (reader->has_dropped_input ? INPUT_WAS_DROPPED : 0) | (command->is_late ? IS_LATE : 0));
  status->first = keeper.ring.first;
  status->end = keeper.ring.end;
  put_status(payload, keeper.is_over ? STATE_EXITED : STATE_RUNNING, status);
  return STATUS_BYTES;
}

static size_t gap_frame(uint8_t *payload, struct reader *reader) {
  reader->position = keeper.ring.first;
  put_u32(payload, (uint32_t)(reader->position >> 32));
  put_u32(payload + 4, (uint32_t)reader->position);
  return 8;
}

/* The next frame for this reader, if there is one for it now. */
static int next_for(struct reader *reader) {
  uint8_t *payload = reader->frame + 5;
  size_t length;
  char type;
  if (reader->queries) {
    reader->queries--;
    type = FRAME_STATUS;
    length = status_frame(payload, reader);
  } else if (reader->is_silent || reader->has_end) {
    return 0;
  } else if (reader->position < keeper.ring.first) {
    type = FRAME_GAP;
    length = gap_frame(payload, reader);
  } else if (reader->position < keeper.ring.end) {
    int is_error;
    length = copy_output(&keeper.ring, reader->position, payload, MAX_CHUNK, &is_error);
    reader->position += length;
    type = is_error ? FRAME_STDERR : FRAME_STDOUT;
  } else if (keeper.is_over) {
    struct end end = end_of(&keeper.command);
    put_end(payload, &end);
    reader->has_end = 1;
    type = FRAME_EXIT;
    length = END_BYTES;
  } else {
    return 0;
  }
  reader->frame[0] = (uint8_t)type;
  put_u32(reader->frame + 1, (uint32_t)length);
  reader->at = 0;
  reader->until = 5 + length;
  return 1;
}

/* Send what the connection takes now. */
static void tell(struct reader *reader) {
  while (reader->at < reader->until || next_for(reader)) {
    ssize_t sent = send(reader->connection, reader->frame + reader->at, reader->until - reader->at,
                        MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && errno == EAGAIN) return;
    if (sent < 0) {
      hang_up(reader);
      return;
    }
    reader->at += (size_t)sent;
    reader->progress = now_ms();
  }
}

/* When the slowest reader may be left behind; 0: output may be read now. */
static int64_t held_until(void) {
  int64_t until = 0, now = now_ms();
  for (int at = 0; at < MAX_READERS; at++) {
    const struct reader *reader = &keeper.readers[at];
    if (reader->connection < 0 || reader->is_silent) continue;
    if (keeper.ring.end - reader->position + 2 * MAX_CHUNK <= RING_BYTES) continue; /* one read of each stream */
    int64_t stalls = reader->progress + STALL_MS;
    if (stalls > now && stalls > until) until = stalls;
  }
  return until;
}

/* Read once; whether there may be more. */
static int take_output(int *end, int is_error) {
  if (*end < 0) return 0;
  ssize_t got = read(*end, chunk, sizeof chunk);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
  if (got <= 0) { /* a terminal whose other end is closed answers EIO */
    if (keeper.command.is_terminal) keeper.command.input = -1;
    close(*end);
    *end = -1;
    return 0;
  }
  add_output(&keeper.ring, chunk, (size_t)got, is_error);
  keeper.slot->status.first = keeper.ring.first; /* in case this process is killed */
  keeper.slot->status.end = keeper.ring.end;
  if (keeper.command.has_ended) keeper.drained += (size_t)got;
  return 1;
}

static void close_output(int *end) {
  if (*end >= 0) close(*end);
  *end = -1;
}

static void finish(void) {
  struct end end = end_of(&keeper.command);
  struct status *status = &keeper.status;
  close_input();
  if (keeper.command.is_terminal) keeper.command.input = -1;
  close_output(&keeper.command.output);
  close_output(&keeper.command.errors);
  status->code = end.code;
  status->signal = end.signal;
  status->cpu_ms = end.cpu_ms;
  status->ended_ms = unix_ms();
  status->flags = (uint8_t)((keeper.command.is_terminal ? IS_TERMINAL : 0) | (end.is_late ? IS_LATE : 0));
  status->first = keeper.ring.first;
  status->end = keeper.ring.end;
  keeper.slot->status = *status;
  keeper.is_over = 1;
  keeper.deadline = 0;
  keeper.leaves = now_ms() + KEEP_MS;
  atomic_store(&keeper.slot->state, STATE_EXITED);
}

/* Connections ------------------------------------------------------------------------------------------- */

static void admit(int connection, int is_silent, uint64_t position) {
  for (int at = 0; at < MAX_READERS; at++) {
    struct reader *reader = &keeper.readers[at];
    if (is_in_use(reader)) continue;
    uint64_t end = keeper.ring.end;
    reader->connection = connection;
    reader->number = ++keeper.admitted;
    reader->is_silent = is_silent;
    reader->has_dropped_input = reader->has_end = 0;
    reader->queries = 1; /* it begins with the state */
    reader->position = position > end ? end : position;
    reader->progress = now_ms();
    reader->input = (struct input){0};
    reader->at = reader->until = 0;
    tell(reader);
    return;
  }
  refuse(connection, AT_LIMIT, EBUSY);
  close(connection);
}

static void hear_sessions(void) {
  uint8_t words[9];
  union {
    struct cmsghdr align;
    char room[CMSG_SPACE(sizeof(int))];
  } ancillary;
  struct iovec piece = {words, sizeof words};
  struct msghdr message = {
      .msg_iov = &piece, .msg_iovlen = 1, .msg_control = ancillary.room, .msg_controllen = sizeof ancillary.room};
  ssize_t got = recvmsg(own_control, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (got == 0) close(own_control), own_control = -1;
  if (got <= 0) return;
  struct cmsghdr *first = CMSG_FIRSTHDR(&message);
  int connection = -1;
  if (first && first->cmsg_type == SCM_RIGHTS && first->cmsg_len == CMSG_LEN(sizeof connection))
    memcpy(&connection, CMSG_DATA(first), sizeof connection);
  if (connection >= 0 && got == 9)
    admit(connection, words[0] != 0, (uint64_t)get_u32(words + 1) << 32 | get_u32(words + 5));
  else if (connection >= 0)
    close(connection);
}

static int has_readers(void) {
  for (int at = 0; at < MAX_READERS; at++)
    if (keeper.readers[at].connection >= 0) return 1;
  return 0;
}

/* From now on, new sessions serve the output themselves. */
static void leave_if_unused(void) {
  if (has_readers() && now_ms() < keeper.leaves) return;
  atomic_store(&keeper.slot->has_keeper, 0);
  hear_sessions(); /* one may have passed its connection on meanwhile */
  if (!has_readers() || now_ms() >= keeper.leaves) _exit(0);
  atomic_store(&keeper.slot->has_keeper, 1);
}

/* The loop ---------------------------------------------------------------------------------------------- */

static int wait_ms(int64_t held) {
  int64_t until = keeper.is_over ? keeper.leaves : keeper.command.has_ended ? 0 : keeper.deadline;
  if (held && (!until || held < until)) until = held;
  if (keeper.command.has_ended && !keeper.is_over && !held) return 0;
  if (!until) return -1;
  int64_t left = until - now_ms();
  return left < 0 ? 0 : left > 60 * 1000 ? 60 * 1000 : (int)left;
}

static void read_output(int is_readable, int has_errors) {
  int more = 0;
  if (is_readable) more |= take_output(&keeper.command.output, 0);
  if (has_errors) more |= take_output(&keeper.command.errors, 1);
  if (keeper.command.has_ended && (!more || keeper.drained > DRAIN_BYTES)) finish();
}

static void go_on(void) {
  const struct command *command = &keeper.command;
  int64_t held = held_until();
  struct pollfd ends[5 + MAX_READERS] = {
      {own_control, POLLIN, 0},
      {command->children, POLLIN, 0},
      {held ? -1 : command->output, POLLIN, 0},
      {held ? -1 : command->errors, POLLIN, 0},
      {keeper.typing ? command->input : -1, POLLOUT, 0},
  };
  for (int at = 0; at < MAX_READERS; at++) {
    struct reader *reader = &keeper.readers[at];
    short events = (short)((reader->input.used < MAX_INPUT ? POLLIN : 0) | (reader->at < reader->until ? POLLOUT : 0));
    ends[5 + at] = (struct pollfd){reader->connection, events, 0};
  }
  if (poll(ends, 5 + MAX_READERS, wait_ms(held)) < 0) return;
  if (keeper.deadline && now_ms() >= keeper.deadline && !command->has_ended) {
    keeper.command.is_late = 1;
    end_command();
  }
  if (ends[1].revents) reap_children(&keeper.command);
  if (ends[0].revents) hear_sessions();
  for (int at = 0; at < MAX_READERS; at++) /* a connection that came just now has no events */
    if (ends[5 + at].revents & (POLLIN | POLLHUP | POLLERR) && keeper.readers[at].connection == ends[5 + at].fd)
      hear(&keeper.readers[at]);
  if (keeper.typing && (ends[4].revents || command->input < 0)) type_on();
  if (!keeper.typing) obey_all();
  if (!held && !keeper.is_over) {
    int all = command->has_ended; /* what it wrote is in the pipes */
    read_output(all || ends[2].revents, all || ends[3].revents);
  }
  for (int at = 0; at < MAX_READERS; at++)
    if (keeper.readers[at].connection >= 0) tell(&keeper.readers[at]);
  if (keeper.is_over) leave_if_unused();
}

static void announce(const struct request *request) {
  struct slot *slot = keeper.slot;
  memcpy(slot->id, request->id, ID_BYTES);
  slot->note_length = (uint16_t)request->note_length;
  if (request->note_length) memcpy(slot->note, request->note, request->note_length);
  keeper.status = (struct status){.started_ms = unix_ms()};
  keeper.status.flags = request->is_terminal ? IS_TERMINAL : 0;
  slot->status = keeper.status;
  atomic_store(&slot->has_keeper, 1);
  atomic_store(&slot->state, STATE_RUNNING);
}

static int take_id(const struct request *request, char *stage) {
  int error = lock_slots();
  if (error) return *stage = AT_LIMIT, EBUSY;
  forget_ended(MAX_ENDED - 1, MAX_ENDED_BYTES);
  if (find_slot(request->id) >= 0) *stage = AT_COMMAND, error = EEXIST;
  else if (count_running() >= MAX_KEPT) *stage = AT_LIMIT, error = EBUSY;
  else announce(request);
  unlock_slots();
  return error;
}

/* What its input begins with is here before the command is: one of which the host could not send it never runs. */
static void await_first_input(int connection, struct input *input, size_t length) {
  int64_t until = now_ms() + REQUEST_MS;
  while (input->used < length) {
    int64_t left = until - now_ms();
    if (left <= 0 || poll(&(struct pollfd){connection, POLLIN, 0}, 1, (int)left) <= 0) _exit(0);
    ssize_t got = fill(input, connection);
    if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) _exit(0);
  }
}

/* It is announced first: its command may kill this process at once. */
static int start(const struct request *request, char *stage) {
  int error = take_id(request, stage);
  if (error) return error;
  error = start_command(&keeper.command, request, stage);
  if (error) atomic_store(&keeper.slot->has_keeper, 0), atomic_store(&keeper.slot->state, STATE_NONE);
  keeper.status.pid = keeper.slot->status.pid = (uint32_t)keeper.command.pid;
  return error;
}

void keep(int connection, struct input *input, const struct request *request) {
  char stage = AT_FORK;
  int error = 0;
  for (int at = 0; at < MAX_READERS; at++) keeper.readers[at].connection = -1;
  keeper.slot = slot_at(own_slot);
  keeper.command.children = watch_children();
  if (!keeper.slot || own_control < 0) error = ENOMEM;
  else keeper.ring = ring_of(own_slot);
  await_first_input(connection, input, request->first_input);
  if (!error) error = start(request, &stage);
  if (error) {
    refuse(connection, stage, error);
    _exit(0);
  }
  become_keeper();
  if (request->timeout_ms) keeper.deadline = now_ms() + request->timeout_ms;
  admit(connection, request->is_silent, 0);
  if (keeper.readers[0].connection >= 0) {
    keeper.readers[0].input = *input; /* what came after the request */
    obey(&keeper.readers[0]);
  }
  for (;;) go_on();
}

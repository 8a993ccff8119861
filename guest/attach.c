/* Connections to commands that another connection started, and the list of those. */
#define _GNU_SOURCE
#include "kept.h"

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ATTACH_BYTES = ID_BYTES + 1 + 8 }; /* id, whether it gets no output, offset of the first byte that it gets */

static void send_all(int connection, const uint8_t *bytes, size_t length) {
  while (length) {
    ssize_t sent = send(connection, bytes, length, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent > 0) {
      bytes += sent;
      length -= (size_t)sent;
    } else if (errno != EINTR && errno != EAGAIN) {
      _exit(0);
    } else if (poll(&(struct pollfd){connection, POLLOUT, 0}, 1, REQUEST_MS) <= 0) {
      _exit(0);
    }
  }
}

static size_t put_head(uint8_t *frame, char type, size_t length) {
  frame[0] = (uint8_t)type;
  put_u32(frame + 1, (uint32_t)length);
  return 5 + length;
}

/* Its place may be forgotten, and used again, at any moment: then what was copied is not its output. */
static int is_still(const struct slot *slot, const uint8_t *id) {
  atomic_thread_fence(memory_order_acquire);
  return atomic_load(&slot->state) != STATE_NONE && !memcmp(id, slot->id, ID_BYTES);
}

/* Its keeper has left, or died: this session tells what that has stored. */
static void tell_without_keeper(int connection, int at, uint64_t position, int is_silent) {
  static uint8_t frame[5 + MAX_CHUNK];
  const struct slot *slot = slot_at(at);
  struct status status = slot->status;
  struct ring ring = ring_of(at);
  uint8_t id[ID_BYTES];
  uint8_t state = atomic_load(&slot->state) == STATE_EXITED ? STATE_EXITED : STATE_LOST;
  memcpy(id, slot->id, ID_BYTES);
  ring.end = status.end;
  ring.first = ring.end - status.first > RING_BYTES ? ring.end : status.first;
  put_status(frame + 5, state, &status);
  send_all(connection, frame, put_head(frame, FRAME_STATUS, STATUS_BYTES));
  if (is_silent) _exit(0);
  if (position < ring.first) {
    position = ring.first;
    put_u32(frame + 5, (uint32_t)(position >> 32));
    put_u32(frame + 9, (uint32_t)position);
    send_all(connection, frame, put_head(frame, FRAME_GAP, 8));
  }
  while (position < ring.end) {
    int is_error;
    size_t length = copy_output(&ring, position, frame + 5, MAX_CHUNK, &is_error);
    if (!is_still(slot, id)) _exit(0);
    position += length;
    send_all(connection, frame, put_head(frame, is_error ? FRAME_STDERR : FRAME_STDOUT, length));
  }
  if (state == STATE_EXITED) {
    struct end end = {status.code, status.cpu_ms, status.signal, (status.flags & IS_LATE) != 0};
    put_end(frame + 5, &end);
    send_all(connection, frame, put_head(frame, FRAME_EXIT, END_BYTES));
  }
  _exit(0);
}

static int pass_on(int connection, int control, const uint8_t *words, size_t length) {
  union {
    struct cmsghdr align;
    char room[CMSG_SPACE(sizeof(int))];
  } ancillary = {0};
  struct iovec piece = {(void *)(uintptr_t)words, length};
  struct msghdr message = {
      .msg_iov = &piece, .msg_iovlen = 1, .msg_control = ancillary.room, .msg_controllen = sizeof ancillary.room};
  struct cmsghdr *first = CMSG_FIRSTHDR(&message);
  first->cmsg_level = SOL_SOCKET;
  first->cmsg_type = SCM_RIGHTS;
  first->cmsg_len = CMSG_LEN(sizeof connection);
  memcpy(CMSG_DATA(first), &connection, sizeof connection);
  return sendmsg(control, &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? errno : 0;
}

void serve_attach(int connection, struct input *input) {
  char type;
  const uint8_t *payload;
  size_t length;
  next_frame(input, &type, &payload, &length);
  if (length != ATTACH_BYTES || input->used != 5 + length) { /* more than that comes once the keeper has answered */
    refuse(connection, AT_REQUEST, EINVAL);
    _exit(0);
  }
  int at = find_slot(payload), is_silent = payload[ID_BYTES] != 0;
  if (at < 0) {
    refuse(connection, AT_COMMAND, ENOENT);
    _exit(0);
  }
  const uint8_t *offset = payload + ID_BYTES + 1;
  int error = control_of(at) < 0 ? EPIPE : pass_on(connection, control_of(at), payload + ID_BYTES, 9);
  if (error == EAGAIN) refuse(connection, AT_LIMIT, EBUSY);
  else if (error && atomic_load(&slot_at(at)->state) == STATE_RUNNING) _exit(0); /* its keeper came after this session */
  else if (error)
    tell_without_keeper(connection, at, (uint64_t)get_u32(offset) << 32 | get_u32(offset + 4), is_silent);
  _exit(0);
}

void serve_list(int connection, struct input *input) {
  uint8_t frame[5 + STATUS_BYTES + ID_BYTES + NOTE_BYTES];
  for (int at = 0; at < MAX_SESSIONS; at++) {
    const struct slot *slot = slot_at(at);
    if (!slot || !is_listed(slot)) continue;
    struct status status = slot->status;
    size_t length = slot->note_length;
    if (length > NOTE_BYTES) length = NOTE_BYTES;
    put_status(frame + 5, atomic_load(&slot->state), &status);
    memcpy(frame + 5 + STATUS_BYTES, slot->id, ID_BYTES);
    memcpy(frame + 5 + STATUS_BYTES + ID_BYTES, slot->note, length);
    send_all(connection, frame, put_head(frame, FRAME_ENTRY, STATUS_BYTES + ID_BYTES + length));
  }
  send_all(connection, frame, put_head(frame, FRAME_LIST_END, 0));
  input->used = 0;
  _exit(0);
}

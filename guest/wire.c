#define _GNU_SOURCE
#include "files.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

void put_u64(uint8_t *to, uint64_t value) {
  put_u32(to, (uint32_t)(value >> 32));
  put_u32(to + 4, (uint32_t)value);
}

uint64_t get_u64(const uint8_t *from) {
  return (uint64_t)get_u32(from) << 32 | get_u32(from + 4);
}

void leave(void) {
  if (draft_name) unlinkat(draft_directory, draft_name, 0);
  _exit(0);
}

static void send_whole(int connection, struct iovec *parts, int count) {
  struct msghdr message = {.msg_iov = parts};
  message.msg_iovlen = (__typeof__(message.msg_iovlen))count; // int with musl, size_t with glibc
  while (message.msg_iovlen) {
    ssize_t sent = sendmsg(connection, &message, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) leave();
    size_t left = (size_t)sent;
    while (message.msg_iovlen && left >= message.msg_iov->iov_len) {
      left -= message.msg_iov->iov_len;
      message.msg_iov++;
      message.msg_iovlen--;
    }
    if (message.msg_iovlen) {
      message.msg_iov->iov_base = (uint8_t *)message.msg_iov->iov_base + left;
      message.msg_iov->iov_len -= left;
    }
  }
}

void answer(const struct wire *wire, char type, const void *payload, size_t length) {
  uint8_t head[5];
  head[0] = (uint8_t)type;
  put_u32(head + 1, (uint32_t)length);
  struct iovec parts[2] = {{head, sizeof head}, {(void *)(uintptr_t)payload, length}};
  send_whole(wire->connection, parts, length ? 2 : 1);
}

void fail_with(const struct wire *wire, int error, char reason, uint64_t count, const char *name) {
  uint8_t payload[13 + MAX_PATH];
  size_t length = name ? strnlen(name, MAX_PATH) : 0;
  put_u32(payload, (uint32_t)error);
  payload[4] = (uint8_t)reason;
  put_u64(payload + 5, count);
  if (length) memcpy(payload + 13, name, length);
  answer(wire, FRAME_FAILED, payload, 13 + length);
  leave();
}

int is_gone(const struct wire *wire) {
  uint8_t ignored[256];
  ssize_t got;
  while ((got = recv(wire->connection, ignored, sizeof ignored, MSG_DONTWAIT)) > 0) continue;
  return got == 0 || (errno != EAGAIN && errno != EINTR);
}

char await_frame(const struct wire *wire, const uint8_t **payload, size_t *length) {
  char type;
  int known;
  while ((known = next_frame(wire->input, &type, payload, length)) == 0) {
    ssize_t got = fill(wire->input, wire->connection);
    if (got > 0) continue;
    if (got == 0 || (errno != EAGAIN && errno != EINTR)) leave();
    poll(&(struct pollfd){wire->connection, POLLIN, 0}, 1, -1);
  }
  if (known < 0) leave();
  return type;
}

#define _GNU_SOURCE
#include "guest.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

void put_u16(uint8_t *to, uint16_t value) {
  to[0] = (uint8_t)(value >> 8);
  to[1] = (uint8_t)value;
}

void put_u32(uint8_t *to, uint32_t value) {
  put_u16(to, (uint16_t)(value >> 16));
  put_u16(to + 2, (uint16_t)value);
}

uint32_t get_u32(const uint8_t *from) {
  return (uint32_t)from[0] << 24 | (uint32_t)from[1] << 16 | (uint32_t)from[2] << 8 | from[3];
}

int64_t now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Only for frames that fit into an empty socket buffer: it does not wait for the host. */
int send_frame(int connection, char type, const void *payload, size_t length) {
  uint8_t frame[5 + 64];
  if (length > sizeof frame - 5) return -1;
  frame[0] = (uint8_t)type;
  put_u32(frame + 1, (uint32_t)length);
  if (length) memcpy(frame + 5, payload, length);
  return send(connection, frame, 5 + length, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)(5 + length) ? 0 : -1;
}

int refuse(int connection, char stage, int error) {
  uint8_t payload[5];
  payload[0] = (uint8_t)stage;
  put_u32(payload + 1, (uint32_t)error);
  return send_frame(connection, FRAME_REFUSED, payload, sizeof payload);
}

int next_frame(const struct input *input, char *type, const uint8_t **payload, size_t *length) {
  if (input->used < 5) return 0;
  const uint8_t *frame = input->data + input->start;
  size_t size = get_u32(frame + 1);
  if (size > MAX_FRAME) return -1;
  if (input->used < 5 + size) return 0;
  *type = (char)frame[0];
  *payload = frame + 5;
  *length = size;
  return 1;
}

void drop_frame(struct input *input) {
  size_t size = 5 + get_u32(input->data + input->start + 1);
  input->used -= size;
  input->start = input->used ? input->start + size : 0;
}

/* Bytes move to the front only once as many were dropped, so that a million of tiny frames cost no more than one. */
static int make_room(struct input *input) {
  if (input->room - input->start - input->used >= MAX_CHUNK) return 0;
  if (input->start >= input->used && input->start) {
    memmove(input->data, input->data + input->start, input->used);
    input->start = 0;
    if (input->room - input->used >= MAX_CHUNK) return 0;
  }
  size_t room = input->start + input->used + 2 * MAX_CHUNK;
  uint8_t *data = realloc(input->data, room);
  if (!data) return -1;
  input->data = data;
  input->room = room;
  return 0;
}

ssize_t fill(struct input *input, int connection) {
  if (make_room(input) < 0) {
    errno = ENOMEM;
    return -1;
  }
  ssize_t got = recv(connection, input->data + input->start + input->used, MAX_CHUNK, MSG_DONTWAIT);
  if (got > 0) input->used += (size_t)got;
  return got;
}

/* One connection of the host: it makes one request, which the handler of its type serves. */
#define _GNU_SOURCE
#include "guest.h"
#include "kept.h"

#include <errno.h>
#include <poll.h>
#include <sys/prctl.h>
#include <unistd.h>

static const struct {
  char type;
  handler *serve;
} handlers[] = {
    {FRAME_RUN, serve_run},
    {FRAME_ATTACH, serve_attach},
    {FRAME_LIST, serve_list},
    {FRAME_FILES, serve_files},
};

/* The type of the first frame, which stays in the input; a connection that sends none in time ends. */
static char await_request(int connection, struct input *input) {
  int64_t until = now_ms() + REQUEST_MS;
  char type;
  const uint8_t *payload;
  size_t length;
  int known;
  while ((known = next_frame(input, &type, &payload, &length)) == 0) {
    int64_t left = until - now_ms();
    if (left <= 0 || poll(&(struct pollfd){connection, POLLIN, 0}, 1, (int)left) <= 0) _exit(0);
    ssize_t got = fill(input, connection);
    if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) _exit(0);
  }
  if (known > 0) return type;
  refuse(connection, AT_REQUEST, EMSGSIZE);
  _exit(0);
}

void serve(int connection) {
  static struct input input;
  uint8_t version[2];
  prctl(PR_SET_DUMPABLE, 0); /* no process of the tenant opens this one's memory or descriptors */
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  put_u16(version, PROTOCOL);
  if (send_frame(connection, FRAME_HELLO, version, sizeof version) < 0) _exit(0);
  char type = await_request(connection, &input);
  for (size_t at = 0; at < sizeof handlers / sizeof *handlers; at++)
    if (handlers[at].type == type) handlers[at].serve(connection, &input);
  refuse(connection, AT_REQUEST, EINVAL);
  _exit(0);
}

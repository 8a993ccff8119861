/* A command that lives as long as its connection: the host gets its output and its end. */
#define _GNU_SOURCE
#include "guest.h"
#include "kept.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct session {
  int connection;
  struct input input;
  uint8_t output[5 + MAX_CHUNK]; /* one frame on its way to the host */
  size_t at, until;
  struct command command;
  size_t typed_left; /* of the first frame of input, which is to be typed: what the command has not read */
  int64_t deadline; /* 0: none */
};

static void hang_up(struct session *session) {
  kill_tree(&session->command);
  _exit(0);
}

static void close_end(int *end) {
  if (*end >= 0) close(*end);
  *end = -1;
}

static void close_input(struct session *session) {
  if (session->command.is_terminal) return; /* it is the output, too */
  close_end(&session->command.input);
}

static void flush_output(struct session *session) {
  while (session->at < session->until) {
    ssize_t sent = send(session->connection, session->output + session->at, session->until - session->at,
                        MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && errno == EAGAIN) return;
    if (sent < 0) hang_up(session);
    session->at += (size_t)sent;
  }
  session->at = session->until = 0;
}

/* Read once; whether there may be more. */
static int take_output(struct session *session, int *end, char type) {
  ssize_t got = read(*end, session->output + 5, MAX_CHUNK);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
  if (got <= 0) { /* a terminal whose other end is closed answers EIO */
    if (session->command.is_terminal) session->command.input = -1;
    close_end(end);
    return 0;
  }
  session->output[0] = (uint8_t)type;
  put_u32(session->output + 1, (uint32_t)got);
  session->until = 5 + (size_t)got;
  flush_output(session);
  return 1;
}

static void type_on(struct session *session) {
  char type;
  const uint8_t *payload;
  size_t length;
  if (!session->typed_left) return;
  next_frame(&session->input, &type, &payload, &length);
  if (session->command.input < 0) {
    session->typed_left = 0;
  } else {
    ssize_t written = write(session->command.input, payload + length - session->typed_left, session->typed_left);
    if (written < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (written < 0) { /* it reads no more */
      session->typed_left = 0;
      close_input(session);
    } else {
      session->typed_left -= (size_t)written;
    }
  }
  if (!session->typed_left) drop_frame(&session->input);
}

static void obey(struct session *session) {
  char type;
  const uint8_t *payload;
  size_t length;
  int known;
  while (!session->typed_left && (known = next_frame(&session->input, &type, &payload, &length)) != 0) {
    if (known < 0) hang_up(session);
    if (type == FRAME_INPUT && length && session->command.input >= 0) {
      session->typed_left = length;
      type_on(session);
      continue;
    }
    if (type == FRAME_INPUT_END) close_input(session);
    if (type == FRAME_SIGNAL && length == 1 && !session->command.has_ended) kill(-session->command.pid, payload[0]);
    if (type == FRAME_WINDOW && length == 4)
      set_window(&session->command, (uint16_t)(payload[0] << 8 | payload[1]), (uint16_t)(payload[2] << 8 | payload[3]));
    drop_frame(&session->input);
  }
}

static void hear(struct session *session) {
  ssize_t got = fill(&session->input, session->connection);
  if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) hang_up(session);
  obey(session);
}

static void send_all(struct session *session) {
  while (session->at < session->until) {
    if (poll(&(struct pollfd){session->connection, POLLOUT, 0}, 1, REQUEST_MS) <= 0) hang_up(session);
    flush_output(session);
  }
}

static void report_end(struct session *session) {
  struct end end = end_of(&session->command);
  put_end(session->output + 5, &end);
  session->output[0] = FRAME_EXIT;
  put_u32(session->output + 1, END_BYTES);
  session->until = 5 + END_BYTES;
  send_all(session);
}

/* What the command wrote is in the pipes when it has ended; its children, which live on, may write for ever. */
static void drain(struct session *session) {
  for (size_t left = 2 * MAX_FRAME; left > MAX_CHUNK; left -= MAX_CHUNK) {
    send_all(session);
    int more = session->command.output >= 0 && take_output(session, &session->command.output, FRAME_STDOUT);
    send_all(session);
    if (session->command.errors >= 0) more |= take_output(session, &session->command.errors, FRAME_STDERR);
    if (!more) break;
  }
  send_all(session);
}

static int wait_ms(const struct session *session) {
  if (!session->deadline) return -1;
  int64_t left = session->deadline - now_ms();
  return left < 0 ? 0 : left > 60 * 1000 ? 60 * 1000 : (int)left;
}

static void go_on(struct session *session) {
  int is_free = !session->until; /* the host has taken all output so far */
  const struct command *command = &session->command;
  struct pollfd ends[5] = {
      {session->connection, (short)((session->input.used < MAX_INPUT ? POLLIN : 0) | (is_free ? 0 : POLLOUT)), 0},
      {session->command.children, POLLIN, 0},
      {is_free ? command->output : -1, POLLIN, 0},
      {is_free ? command->errors : -1, POLLIN, 0},
      {session->typed_left ? command->input : -1, POLLOUT, 0},
  };
  if (poll(ends, 5, wait_ms(session)) < 0 && errno != EINTR) hang_up(session);
  if (session->deadline && now_ms() >= session->deadline) {
    session->command.is_late = 1;
    kill_tree(&session->command);
    session->command.has_ended = 1;
    return;
  }
  if (ends[0].revents & POLLOUT) flush_output(session);
  if (ends[0].revents & (POLLIN | POLLHUP | POLLERR)) hear(session);
  if (ends[4].revents) type_on(session), obey(session);
  if (!session->until && ends[2].revents) take_output(session, &session->command.output, FRAME_STDOUT);
  if (!session->until && ends[3].revents) take_output(session, &session->command.errors, FRAME_STDERR);
  if (ends[1].revents) reap_children(&session->command);
}

void serve_run(int connection, struct input *input) {
  static struct session session;
  struct request request;
  char type, stage = AT_REQUEST;
  const uint8_t *payload;
  size_t length;
  session.connection = connection;
  session.input = *input;
  session.command.children = watch_children();
  next_frame(&session.input, &type, &payload, &length);
  int error = parse_request(&request, payload, length);
  drop_frame(&session.input);
  if (!error && request.id) keep(connection, &session.input, &request);
  if (!error) error = start_command(&session.command, &request, &stage);
  if (error) {
    refuse(connection, stage, error);
    _exit(0);
  }
  if (request.timeout_ms) session.deadline = now_ms() + request.timeout_ms;
  obey(&session);
  while (!session.command.has_ended) go_on(&session);
  drain(&session);
  report_end(&session);
  _exit(0);
}

/* The guest agent: process 1 of a container, and the sessions that it forks for connections of the host. */
#ifndef GUEST_H
#define GUEST_H

#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

enum {
  PROTOCOL = 3,              /* the host asks for nothing newer than what the hello says */
  MAX_FRAME = 1 << 20,       /* bytes of a payload */
  MAX_INPUT = 5 + MAX_FRAME, /* with so many bytes, input has a whole frame, and nothing more is read */
  MAX_CHUNK = 64 << 10,      /* bytes of output in one frame */
  MAX_WORDS = 16384,         /* arguments, and variables, of one command */
  MAX_SESSIONS = 128,
  REQUEST_MS = 10 * 1000,    /* a connection that asks for nothing ends */
  KILL_MS = 2000,            /* how long a session tries to end all descendants of its command */
};

/* Frames: type (1 byte), length (4, big endian), payload. docs/guest-agent.md describes each. */
enum {
  FRAME_RUN = 'R', FRAME_FILES = 'F', FRAME_INPUT = 'I', FRAME_INPUT_END = 'E', FRAME_SIGNAL = 'S', FRAME_WINDOW = 'W',
  FRAME_HELLO = 'H', FRAME_STDOUT = '1', FRAME_STDERR = '2', FRAME_EXIT = 'X', FRAME_REFUSED = '!',
};

/* Where a request failed before its command ran. */
enum { AT_LIMIT = 'l', AT_REQUEST = 'r', AT_FORK = 'f', AT_DIRECTORY = 'd', AT_EXECVE = 'x' };

/* main.c */
extern const char *working_directory; /* of the container, by its path: a restore replaces the directory itself */
void fail(const char *what);

/* frames.c */
void put_u16(uint8_t *to, uint16_t value);
void put_u32(uint8_t *to, uint32_t value);
uint32_t get_u32(const uint8_t *from);
int64_t now_ms(void);
int send_frame(int connection, char type, const void *payload, size_t length);
int refuse(int connection, char stage, int error);

struct input { /* what the host has sent and no frame was dropped for: `used` bytes from `start` on */
  uint8_t *data;
  size_t start, used, room;
};
/* 1: *type, *payload and *length are set; 0: incomplete; -1: too large. drop_frame removes what next_frame returned.
   The payload stays in its place until fill. */
int next_frame(const struct input *input, char *type, const uint8_t **payload, size_t *length);
void drop_frame(struct input *input);
/* The bytes read; 0 at the end of the connection; -1 with errno. */
ssize_t fill(struct input *input, int connection);

/* request.c */
struct request {
  char **argv, **environment, *directory;
  int wants_input, is_terminal;
  uint16_t rows, columns;
  int64_t timeout_ms; /* 0: none */
  uint8_t *id;        /* of a command that is kept (kept.h); NULL: it ends with its connection */
  int is_silent;      /* the connection that starts it gets none of its output */
  uint8_t *note;
  size_t note_length;
  size_t first_input; /* bytes of frames after this one without which a command that is kept does not start */
};
/* 0, or an errno. The strings are copies. */
int parse_request(struct request *request, const uint8_t *payload, size_t length);

/* command.c */
struct command {
  pid_t pid;
  int input, output, errors; /* -1: none, or closed */
  int is_terminal;
  int children; /* readable when a child has ended */
  int has_ended, status, is_late;
  struct rusage used;
};
/* 0, or an errno with *stage. The command runs with the standard signal handling in a session of its own. */
int start_command(struct command *command, const struct request *request, char *stage);
void set_window(const struct command *command, uint16_t rows, uint16_t columns);
void restore_signals(void);

/* tree.c */
int watch_children(void);
void reap_children(struct command *command);
void kill_tree(struct command *command); /* the command and all its descendants, for at most KILL_MS */
enum { END_BYTES = 10 };
struct end {
  uint32_t code, cpu_ms;
  uint8_t signal, is_late;
};
struct end end_of(const struct command *command);
void put_end(uint8_t to[END_BYTES], const struct end *end);

/* session.c */
void serve(int connection) __attribute__((noreturn));

/* Serves a connection from its first frame on, which is the first in the input and whole. Does not return. */
typedef void handler(int connection, struct input *input);
handler serve_run;   /* run.c */
handler serve_files; /* files.c: then input, and its end */

#endif

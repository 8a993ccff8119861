/* File operations: what the modules of a session that serves files share. */
#ifndef FILES_H
#define FILES_H

#include "guest.h"

#include <dirent.h>
#include <sys/stat.h>

enum {
  FRAME_READY = 'G',   /* to the host: what follows is awaited */
  FRAME_META = 'M', FRAME_DATA = 'D', FRAME_ENTRIES = 'N', FRAME_EVENT = 'V', FRAME_DONE = 'Z', FRAME_FAILED = 'Y',
};

enum { MAX_PATH = 4096, PIECE = 256 << 10, MAX_MATCHES = 16, MAX_LEVELS = 256 };

/* Why a request failed, where the errno alone does not say it. */
enum {
  BY_ERRNO = '-', BY_SECRETS = 'h', BY_KERNEL = 'k', BY_KIND = 't', BY_CONDITION = 'm', BY_ARCHIVE = 'a', BY_NAME = '.',
};

enum { NO_REPLACE = 1, MUST_EXIST = 2, WITH_PARENTS = 4, RECURSIVE = 8, KEEPS_MODE = 16 };

enum { META_SIZE = 45, IDENTITY_SIZE = 32 };

struct file_request {
  char operation;
  char *path, *to;
  uint64_t size; /* of what will be written, as far as the host knows */
  uint32_t mode, flags, depth, limit;
  int not_hidden; /* why a mount that is to be hidden cannot be */
  const uint8_t *matches; /* identities of IDENTITY_SIZE bytes each */
  size_t match_count;
};

struct wire {
  int connection;
  struct input *input;
};

/* wire.c: these wait for the host, and end the session when it hangs up. */
void answer(const struct wire *wire, char type, const void *payload, size_t length);
void fail_with(const struct wire *wire, int error, char reason, uint64_t count, const char *name) __attribute__((noreturn));
/* The next frame, which drop_frame removes. */
char await_frame(const struct wire *wire, const uint8_t **payload, size_t *length);
void leave(void) __attribute__((noreturn));
/* Whether the host has hung up. It ignores what that has sent since its request. */
int is_gone(const struct wire *wire);
void put_u64(uint8_t *to, uint64_t value);
uint64_t get_u64(const uint8_t *from);

/* places.c */
extern const char *draft_name; /* of a named draft that leave removes from draft_directory */
extern int draft_directory;
/* A mount whose files no operation shows. 0, or an errno (never EACCES): then nothing may be shown. */
int hide(const char *path);
int is_hidden(int descriptor);
char type_of(const struct stat *of);
void pack_meta(uint8_t *to, const struct stat *of);
void pack_identity(uint8_t *to, const struct stat *of);
/* The directory that contains the last name of the path, as a handle, and that name in base; 0 or an errno with *reason.
   Links on the way are followed, the last name's is not. */
int open_parent(const char *path, int *directory, char base[256], char *reason);
/* A handle to where the path leads: links are followed. */
int open_place(const char *path, int *handle, struct stat *is, char *reason);
int open_directory(const char *path, int *directory, char *reason);
int make_parents(const char *path);

struct draft { /* a file without a name, or with one of ours until it gets its own */
  int directory, descriptor, is_named;
  char name[64];
};
int open_draft(struct draft *draft, int directory);
/* Give the draft its name; with NO_REPLACE, EEXIST if the name is taken. */
int place_draft(struct draft *draft, const char *base, uint32_t flags);
void drop_draft(struct draft *draft);
int write_all(int descriptor, const uint8_t *data, size_t length);

/* files.c, listing.c, removal.c, archive.c, unpack.c, watch.c */
void list_directory(const struct wire *wire, const struct file_request *request);
void remove_tree(const struct wire *wire, const struct file_request *request);
void send_archive(const struct wire *wire, const struct file_request *request);
void unpack_archive(const struct wire *wire, const struct file_request *request);
void watch_directory(const struct wire *wire, const struct file_request *request);

#endif

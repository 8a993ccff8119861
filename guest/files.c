/* One file operation of the host. The session has the rights of the container's user, so the kernel decides what it may
   read and write; what is refused here would not end, or is a secret. */
#define _GNU_SOURCE
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

enum { LOCK_MS = 2000 };

#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE 1
#endif

static uint8_t buffer[PIECE];

static char *copy_path(const uint8_t *bytes, size_t length) {
  if (!length || length >= MAX_PATH || bytes[0] != '/' || memchr(bytes, 0, length)) return NULL;
  return strndup((const char *)bytes, length);
}

static int parse_item(struct file_request *request, char tag, const uint8_t *bytes, size_t size) {
  char *path;
  switch (tag) {
    case 'v':
      if (size != 1) return EINVAL;
      request->operation = (char)bytes[0];
      return 0;
    case 'p': return (request->path = copy_path(bytes, size)) ? 0 : EINVAL;
    case 'q': /* where to, or a cursor, which may be any bytes but NUL */
      if (size >= MAX_PATH || memchr(bytes, 0, size)) return EINVAL;
      return (request->to = strndup((const char *)bytes, size)) ? 0 : ENOMEM;
    case 'x':
      if (!(path = copy_path(bytes, size))) return EINVAL;
      if (!request->not_hidden) request->not_hidden = hide(path);
      free(path);
      return 0;
    case 'z':
      if (size != 8) return EINVAL;
      request->size = get_u64(bytes);
      return 0;
    case 't':
      if (size % IDENTITY_SIZE || size > MAX_MATCHES * IDENTITY_SIZE) return EINVAL;
      request->matches = bytes;
      request->match_count = size / IDENTITY_SIZE;
      return 0;
    default: break;
  }
  if (size != 4) return EINVAL;
  switch (tag) {
    case 'm': request->mode = get_u32(bytes); return 0;
    case 'f': request->flags = get_u32(bytes); return 0;
    case 'd': request->depth = get_u32(bytes); return 0;
    case 'n': request->limit = get_u32(bytes); return 0;
    default: return EINVAL;
  }
}

static int parse_file_request(struct file_request *request, const uint8_t *payload, size_t length) {
  memset(request, 0, sizeof *request);
  while (length) {
    if (length < 5) return EINVAL;
    size_t size = get_u32(payload + 1);
    if (size > length - 5) return EINVAL;
    int error = parse_item(request, (char)payload[0], payload + 5, size);
    if (error) return error;
    payload += 5 + size;
    length -= 5 + size;
  }
  return request->operation && request->path ? 0 : EINVAL;
}

static void answer_meta(const struct wire *wire, const struct stat *of, const char *target) {
  uint8_t payload[META_SIZE + MAX_PATH];
  size_t length = target ? strlen(target) : 0;
  pack_meta(payload, of);
  if (length) memcpy(payload + META_SIZE, target, length);
  answer(wire, FRAME_META, payload, META_SIZE + length);
}

/* Files of the kernel have no size, and some have no end. */
static int is_of_kernel(int descriptor, const struct stat *is) {
  struct statfs system;
  if (is->st_size || fstatfs(descriptor, &system) < 0) return 0;
  switch ((unsigned long)system.f_type) {
    case 0x9fa0:     /* proc */
    case 0x62656572: /* sysfs */
    case 0x27e0eb:   /* cgroup */
    case 0x63677270: /* cgroup2 */
    case 0x64626720: /* debugfs */
    case 0x74726163: /* tracefs */
    case 0x73636673: /* securityfs */ return 1;
    default: return 0;
  }
}

/* No device and no FIFO is opened: a handle shows what it is, and only a regular file is opened through it. */
static int open_regular(const char *path, struct stat *is, char *reason) {
  char through[64];
  int handle, error = open_place(path, &handle, is, reason);
  if (error) return -error;
  if (S_ISDIR(is->st_mode)) error = EISDIR;
  else if (!S_ISREG(is->st_mode)) *reason = BY_KIND, error = EINVAL;
  else if (is_of_kernel(handle, is)) *reason = BY_KERNEL, error = EINVAL;
  snprintf(through, sizeof through, "/proc/self/fd/%d", handle);
  int file = error ? -1 : open(through, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  if (!error && file < 0) error = errno;
  close(handle);
  return error ? -error : file;
}

/* The metadata first; then the host asks for parts of the file that it describes, or hangs up. */
static void get(const struct wire *wire, const struct file_request *request) {
  struct stat is;
  char reason;
  int file = open_regular(request->path, &is, &reason);
  if (file < 0) fail_with(wire, -file, reason, 0, NULL);
  answer_meta(wire, &is, NULL);
  for (;;) {
    const uint8_t *payload;
    size_t length;
    if (await_frame(wire, &payload, &length) != FRAME_INPUT || length != 16) leave();
    uint64_t offset = get_u64(payload), left = get_u64(payload + 8);
    drop_frame(wire->input);
    while (left) {
      ssize_t got = pread(file, buffer, left < PIECE ? (size_t)left : PIECE, (off_t)offset);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) fail_with(wire, errno, BY_ERRNO, 0, NULL);
      if (got == 0) leave(); /* it has become shorter: the host sees that bytes are missing */
      answer(wire, FRAME_DATA, buffer, (size_t)got);
      offset += (uint64_t)got;
      left -= (uint64_t)got;
    }
    answer(wire, FRAME_DONE, NULL, 0);
  }
}

static int matches(const struct file_request *request, const struct stat *is) {
  uint8_t identity[IDENTITY_SIZE];
  pack_identity(identity, is);
  for (size_t at = 0; at < request->match_count; at++)
    if (!memcmp(request->matches + at * IDENTITY_SIZE, identity, sizeof identity)) return 1;
  return 0;
}

static int is_conditional(const struct file_request *request) {
  return request->match_count || request->flags & MUST_EXIST;
}

/* 0, or an errno with *reason. *exists: *is describes what has the name. */
static int check_target(const struct file_request *request, int directory, const char *base, struct stat *is,
                        int *exists, char *reason) {
  *reason = BY_ERRNO;
  *exists = !fstatat(directory, base, is, AT_SYMLINK_NOFOLLOW);
  if (!*exists && errno != ENOENT) return errno;
  if (*exists && S_ISDIR(is->st_mode)) return EISDIR;
  if (*exists && !S_ISREG(is->st_mode) && !S_ISLNK(is->st_mode)) return *reason = BY_KIND, EINVAL;
  if (*exists && request->flags & NO_REPLACE) return *reason = BY_CONDITION, EEXIST;
  if (!is_conditional(request)) return 0;
  if (!*exists) return *reason = BY_CONDITION, ENOENT;
  if (request->match_count && !matches(request, is)) return *reason = BY_CONDITION, EAGAIN;
  return 0;
}

/* Writers that compare come one after the other, so that of two that read the same version only one replaces it. */
static int lock_directory(int directory) {
  int lock = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (lock < 0) return errno;
  int64_t until = now_ms() + LOCK_MS;
  while (flock(lock, LOCK_EX | LOCK_NB) < 0) {
    if (errno != EWOULDBLOCK && errno != EINTR) return errno;
    if (now_ms() > until) return EBUSY; /* the tenant's own programs may hold it for ever */
    poll(NULL, 0, 5);
  }
  return 0;
}

/* A link is written through, so that what has the name stays a link. */
static char *target_of(const struct wire *wire, const struct file_request *request) {
  struct stat is;
  if (lstat(request->path, &is) < 0 || !S_ISLNK(is.st_mode)) return request->path;
  char *real = realpath(request->path, NULL);
  if (!real) fail_with(wire, errno, BY_ERRNO, 0, NULL);
  return real;
}

static void receive_content(const struct wire *wire, struct draft *draft) {
  const uint8_t *payload;
  size_t length;
  for (;;) {
    char type = await_frame(wire, &payload, &length);
    int error = type == FRAME_INPUT ? write_all(draft->descriptor, payload, length) : 0;
    drop_frame(wire->input);
    if (type == FRAME_INPUT_END) return;
    if (error) fail_with(wire, error, BY_ERRNO, 0, NULL);
    if (type != FRAME_INPUT) leave();
  }
}

static void reserve(const struct wire *wire, const struct draft *draft, uint64_t size) {
  struct statvfs system;
  if (!size) return;
  if (size > INT64_MAX) fail_with(wire, EFBIG, BY_ERRNO, 0, NULL);
  if (!fstatvfs(draft->descriptor, &system) && system.f_blocks && size / system.f_frsize > system.f_bavail)
    fail_with(wire, ENOSPC, BY_ERRNO, 0, NULL); /* also where nothing can be reserved */
  if (!fallocate(draft->descriptor, FALLOC_FL_KEEP_SIZE, 0, (off_t)size)) return;
  if (errno == ENOSPC || errno == EDQUOT || errno == EFBIG) fail_with(wire, errno, BY_ERRNO, 0, NULL);
}

static void put(const struct wire *wire, const struct file_request *request) {
  struct draft draft;
  struct stat is;
  char base[256], reason;
  int directory, exists;
  if (request->flags & WITH_PARENTS) make_parents(request->path);
  const char *path = target_of(wire, request);
  int error = open_parent(path, &directory, base, &reason);
  if (!error && (!strcmp(base, ".") || !strcmp(base, ".."))) error = EISDIR;
  if (!error && request->path[strlen(request->path) - 1] == '/') error = EISDIR;
  if (!error) error = check_target(request, directory, base, &is, &exists, &reason);
  if (!error) error = open_draft(&draft, directory);
  if (error) fail_with(wire, error, reason, 0, NULL);
  reserve(wire, &draft, request->size);
  answer(wire, FRAME_READY, NULL, 0);
  receive_content(wire, &draft);
  if (is_conditional(request) && (error = lock_directory(directory))) fail_with(wire, error, BY_ERRNO, 0, NULL);
  if ((error = check_target(request, directory, base, &is, &exists, &reason))) fail_with(wire, error, reason, 0, NULL);
  mode_t mode = request->flags & KEEPS_MODE && exists ? is.st_mode & 07777 : request->mode & 07777;
  if (fchmod(draft.descriptor, mode) < 0) error = errno;
  if (!error) error = place_draft(&draft, base, request->flags);
  if (error == EEXIST && request->flags & NO_REPLACE) reason = BY_CONDITION;
  if (!error && fstat(draft.descriptor, &is) < 0) error = errno;
  if (error) fail_with(wire, error, reason, 0, NULL);
  answer_meta(wire, &is, NULL);
}

static void show(const struct wire *wire, const struct file_request *request) {
  struct stat is;
  char base[256], reason, target[MAX_PATH];
  int directory, error = open_parent(request->path, &directory, base, &reason);
  if (error) fail_with(wire, error, reason, 0, NULL);
  if (fstatat(directory, base, &is, AT_SYMLINK_NOFOLLOW) < 0) fail_with(wire, errno, BY_ERRNO, 0, NULL);
  ssize_t length = S_ISLNK(is.st_mode) ? readlinkat(directory, base, target, sizeof target - 1) : 0;
  target[length < 0 ? 0 : length] = 0;
  answer_meta(wire, &is, target);
}

static void make_directory(const struct wire *wire, const struct file_request *request) {
  struct stat is;
  char base[256], reason;
  int directory, error, is_new = 1;
  if (request->flags & WITH_PARENTS) make_parents(request->path);
  if ((error = open_parent(request->path, &directory, base, &reason))) fail_with(wire, error, reason, 0, NULL);
  if (mkdirat(directory, base, 0700) < 0) {
    error = errno, is_new = 0;
    int is_there = !fstatat(directory, base, &is, 0) && S_ISDIR(is.st_mode);
    if (!is_there || !(request->flags & WITH_PARENTS)) fail_with(wire, error, BY_ERRNO, 0, NULL);
  } else {
    int made = openat(directory, base, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC); /* the umask does not count */
    if (made < 0 || fchmod(made, request->mode & 07777) < 0 || fstat(made, &is) < 0)
      fail_with(wire, errno, BY_ERRNO, 0, NULL);
  }
  answer_meta(wire, &is, is_new ? "+" : "");
}

static int rename_to(int from, const char *base, int to, const char *name, uint32_t flags) {
  if (!(flags & NO_REPLACE)) return renameat(from, base, to, name) < 0 ? errno : 0;
  if (!syscall(SYS_renameat2, from, base, to, name, RENAME_NOREPLACE)) return 0;
  if (errno != EINVAL && errno != ENOSYS) return errno;
  struct stat is; /* a file system that cannot do both at once */
  if (!fstatat(to, name, &is, AT_SYMLINK_NOFOLLOW)) return EEXIST;
  return renameat(from, base, to, name) < 0 ? errno : 0;
}

static void move(const struct wire *wire, const struct file_request *request) {
  struct stat is;
  char base[256], name[256], reason;
  int from, to, error = request->to && request->to[0] == '/' ? 0 : EINVAL;
  if (error) fail_with(wire, error, BY_NAME, 0, NULL);
  if ((error = open_parent(request->path, &from, base, &reason))) fail_with(wire, error, reason, 0, request->path);
  if (request->flags & WITH_PARENTS) make_parents(request->to);
  if ((error = open_parent(request->to, &to, name, &reason))) fail_with(wire, error, reason, 0, request->to);
  if (!strcmp(base, ".") || !strcmp(name, ".")) fail_with(wire, EBUSY, BY_ERRNO, 0, NULL);
  if ((error = rename_to(from, base, to, name, request->flags))) fail_with(wire, error, BY_ERRNO, 0, NULL);
  if (fstatat(to, name, &is, AT_SYMLINK_NOFOLLOW) < 0) fail_with(wire, errno, BY_ERRNO, 0, NULL);
  answer_meta(wire, &is, NULL);
}

static void raise_limit_of_files(void) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) < 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

void serve_files(int connection, struct input *input) {
  struct wire wire = {connection, input};
  struct file_request request;
  const uint8_t *payload;
  size_t length;
  await_frame(&wire, &payload, &length); /* it is here */
  static uint8_t kept[MAX_MATCHES * IDENTITY_SIZE];
  int error = parse_file_request(&request, payload, length);
  if (error) fail_with(&wire, error, BY_NAME, 0, NULL);
  if (request.not_hidden) fail_with(&wire, request.not_hidden, BY_SECRETS, 0, NULL);
  if (request.match_count) {
    memcpy(kept, request.matches, request.match_count * IDENTITY_SIZE);
    request.matches = kept; /* the frame goes */
  }
  drop_frame(input);
  signal(SIGXFSZ, SIG_IGN); /* a file beyond its limit is an errno */
  umask(0);
  raise_limit_of_files();
  switch (request.operation) {
    case 'g': get(&wire, &request); break;
    case 'p': put(&wire, &request); break;
    case 's': show(&wire, &request); break;
    case 'l': list_directory(&wire, &request); break;
    case 'd': make_directory(&wire, &request); break;
    case 'n': move(&wire, &request); break;
    case 'r': remove_tree(&wire, &request); break;
    case 'w': watch_directory(&wire, &request); break;
    case 'a': send_archive(&wire, &request); break;
    case 'u': unpack_archive(&wire, &request); break;
    default: fail_with(&wire, ENOSYS, BY_NAME, 0, NULL);
  }
  leave();
}

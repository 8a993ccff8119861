/* Where a path leads, and how a file comes to its name. */
#define _GNU_SOURCE
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MAX_HIDDEN = 8 };

static struct {
  long mount; /* -1: unknown */
  dev_t device;
} hidden[MAX_HIDDEN];
static size_t hidden_count;

const char *draft_name;
int draft_directory;

/* A path says nothing about the mount that it leads into; the kernel does. */
static long mount_of(int descriptor) {
  char path[64], line[128];
  long mount = -1;
  snprintf(path, sizeof path, "/proc/self/fdinfo/%d", descriptor);
  FILE *file = fopen(path, "re");
  if (!file) return -1;
  while (fgets(line, sizeof line, file))
    if (sscanf(line, "mnt_id: %ld", &mount) == 1) break;
  fclose(file);
  return mount;
}

/* 0 only if the kernel says so: before Linux 5.8 it does not. */
static int is_mounted(int handle) {
  struct {
    uint32_t mask, block_size;
    uint64_t attributes, rest[5], known_attributes, more[24];
  } got = {0};
  const uint64_t mount_root = 0x2000;
  if (syscall(SYS_statx, handle, "", AT_EMPTY_PATH, 0, &got) < 0) return 1;
  return !(got.known_attributes & mount_root) || got.attributes & mount_root;
}

/* A tenant can move the directories above a mount, and have something else at its path. */
int hide(const char *path) {
  struct stat is;
  if (hidden_count == MAX_HIDDEN) return E2BIG;
  int handle = open(path, O_PATH | O_CLOEXEC | O_NOFOLLOW);
  if (handle < 0) return errno == EACCES ? EPERM : errno;
  int error = fstat(handle, &is) < 0 ? errno : is_mounted(handle) ? 0 : ENOENT;
  if (!error) {
    hidden[hidden_count].mount = mount_of(handle);
    hidden[hidden_count++].device = is.st_dev;
  }
  close(handle);
  return error;
}

int is_hidden(int descriptor) {
  struct stat is;
  if (!hidden_count || fstat(descriptor, &is) < 0) return 0;
  long mount = -2;
  for (size_t at = 0; at < hidden_count; at++) {
    if (hidden[at].device != is.st_dev) continue; /* most files are elsewhere: no need to ask for their mount */
    if (mount == -2) mount = mount_of(descriptor);
    if (mount < 0 || hidden[at].mount < 0 || mount == hidden[at].mount) return 1;
  }
  return 0;
}

char type_of(const struct stat *of) {
  switch (of->st_mode & S_IFMT) {
    case S_IFREG: return 'f';
    case S_IFDIR: return 'd';
    case S_IFLNK: return 'l';
    case S_IFIFO: return 'p';
    case S_IFSOCK: return 's';
    case S_IFCHR: return 'c';
    case S_IFBLK: return 'b';
    default: return '?';
  }
}

static uint64_t nanoseconds(struct timespec at) {
  return (uint64_t)at.tv_sec * 1000000000 + (uint64_t)at.tv_nsec; /* before 1970 too: modulo 2^64 */
}

void pack_meta(uint8_t *to, const struct stat *of) {
  to[0] = (uint8_t)type_of(of);
  put_u32(to + 1, of->st_mode & 07777);
  put_u64(to + 5, (uint64_t)of->st_size);
  put_u64(to + 13, nanoseconds(of->st_mtim));
  put_u64(to + 21, nanoseconds(of->st_ctim));
  put_u64(to + 29, of->st_ino);
  put_u64(to + 37, of->st_dev);
}

void pack_identity(uint8_t *to, const struct stat *of) {
  put_u64(to, (uint64_t)of->st_size);
  put_u64(to + 8, nanoseconds(of->st_mtim));
  put_u64(to + 16, nanoseconds(of->st_ctim));
  put_u64(to + 24, of->st_ino);
}

int open_parent(const char *path, int *directory, char base[256], char *reason) {
  char before[MAX_PATH];
  size_t length = strlen(path);
  *reason = BY_ERRNO;
  while (length > 1 && path[length - 1] == '/') length--;
  size_t start = length;
  while (start && path[start - 1] != '/') start--;
  if (length - start > 255 || start >= sizeof before) return ENAMETOOLONG;
  memcpy(base, path + start, length - start);
  base[length - start] = 0;
  memcpy(before, path, start);
  before[start] = 0;
  if (!strcmp(path, "/") || !base[0]) strcpy(base, ".");
  *directory = open(before[0] ? before : "/", O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (*directory < 0) return errno;
  if (!is_hidden(*directory)) return 0;
  close(*directory);
  *reason = BY_SECRETS;
  return EACCES;
}

int open_place(const char *path, int *handle, struct stat *is, char *reason) {
  *reason = BY_ERRNO;
  *handle = open(path, O_PATH | O_CLOEXEC);
  if (*handle < 0) return errno;
  int error = fstat(*handle, is) < 0 ? errno : 0;
  if (!error && is_hidden(*handle)) *reason = BY_SECRETS, error = EACCES;
  if (error) close(*handle);
  return error;
}

int open_directory(const char *path, int *directory, char *reason) {
  *reason = BY_ERRNO;
  *directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NONBLOCK);
  if (*directory < 0) return errno;
  if (!is_hidden(*directory)) return 0;
  close(*directory);
  *reason = BY_SECRETS;
  return EACCES;
}

int make_parents(const char *path) {
  char part[MAX_PATH];
  size_t length = strlen(path);
  if (length >= sizeof part) return ENAMETOOLONG;
  for (size_t at = 1; at < length; at++) {
    if (path[at] != '/') continue;
    memcpy(part, path, at);
    part[at] = 0;
    if (mkdir(part, 0755) < 0 && errno != EEXIST && errno != EROFS && errno != EACCES) return errno;
  }
  return 0; /* what could not be made shows when it is opened */
}

int write_all(int descriptor, const uint8_t *data, size_t length) {
  while (length) {
    ssize_t written = write(descriptor, data, length);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return errno;
    data += written;
    length -= (size_t)written;
  }
  return 0;
}

/* A draft's name cannot be guessed in advance, only seen: who sees it owns the directory anyway. */
static void name_draft(struct draft *draft) {
  static unsigned count;
  snprintf(draft->name, sizeof draft->name, ".boilerhouse-%d-%llx-%u", getpid(), (unsigned long long)now_ms(), count++);
}

int open_draft(struct draft *draft, int directory) {
  draft->directory = directory;
  draft->is_named = 0;
  draft->descriptor = openat(directory, ".", O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
  if (draft->descriptor >= 0) return 0;
  if (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL && errno != ENOENT) return errno;
  name_draft(draft);
  draft->descriptor = openat(directory, draft->name, O_CREAT | O_EXCL | O_NOFOLLOW | O_WRONLY | O_CLOEXEC, 0600);
  if (draft->descriptor < 0) return errno;
  draft->is_named = 1;
  draft_name = draft->name;
  draft_directory = directory;
  return 0;
}

static int link_to(const struct draft *draft, const char *name) {
  char path[64];
  if (draft->is_named) return linkat(draft->directory, draft->name, draft->directory, name, 0) < 0 ? errno : 0;
  snprintf(path, sizeof path, "/proc/self/fd/%d", draft->descriptor);
  return linkat(AT_FDCWD, path, draft->directory, name, AT_SYMLINK_FOLLOW) < 0 ? errno : 0;
}

int place_draft(struct draft *draft, const char *base, uint32_t flags) {
  int error = EEXIST;
  if (!draft->is_named || flags & NO_REPLACE) error = link_to(draft, base);
  if (error == EEXIST && !(flags & NO_REPLACE)) {
    if (!draft->is_named) {
      name_draft(draft);
      if ((error = link_to(draft, draft->name))) return error;
      draft->is_named = 1;
      draft_name = draft->name;
      draft_directory = draft->directory;
    }
    if (renameat(draft->directory, draft->name, draft->directory, base) < 0) return errno;
    draft->is_named = 0;
    draft_name = NULL;
    return 0;
  }
  return error;
}

void drop_draft(struct draft *draft) {
  if (draft->is_named) unlinkat(draft->directory, draft->name, 0);
  draft->is_named = 0;
  draft_name = NULL;
  close(draft->descriptor);
}

/* Removes a file, or a directory with all that is in it, without following a link. */
#define _GNU_SOURCE
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* So deep is a directory emptied in place; what is deeper is moved up first, so that any depth needs few descriptors. */
enum { DEPTH = 24, LOOK_EVERY = 256 };

struct removal {
  const struct wire *wire;
  unsigned steps;
  int top;
  dev_t device;
  unsigned moved;
  uint64_t count;
};

static int move_up(struct removal *removal, int directory, const char *name) {
  char place[48];
  snprintf(place, sizeof place, ".boilerhouse-removal-%d-%u", getpid(), removal->moved++);
  return renameat(directory, name, removal->top, place) < 0 ? errno : 0;
}

static int is_link_to_itself(const char *name) {
  return !strcmp(name, ".") || !strcmp(name, "..");
}

static int empty(struct removal *removal, int directory, int level);

static int remove_entry(struct removal *removal, int directory, const char *name, int level) {
  if (removal->steps++ % LOOK_EVERY == 0 && is_gone(removal->wire)) leave(); /* others may add to it for ever */
  if (!unlinkat(directory, name, 0)) return removal->count++, 0;
  if (errno == ENOENT) return 0;
  if (errno != EISDIR && errno != EPERM) return errno;
  struct stat is;
  int first = errno;
  if (fstatat(directory, name, &is, AT_SYMLINK_NOFOLLOW) < 0) return errno == ENOENT ? 0 : errno;
  if (!S_ISDIR(is.st_mode)) return first;
  if (level == DEPTH) return move_up(removal, directory, name);
  int child = openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (child < 0 && errno == EACCES && !fchmodat(directory, name, 0700, 0)) /* as its owner may */
    child = openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (child < 0) return errno == ENOENT ? 0 : errno;
  int error = fstat(child, &is) < 0 ? errno : is.st_dev != removal->device ? EXDEV : empty(removal, child, level + 1);
  close(child);
  if (!error && unlinkat(directory, name, AT_REMOVEDIR) < 0) error = errno == ENOENT ? 0 : errno;
  if (!error) removal->count++;
  return error;
}

/* Until nothing is left: others may add to it meanwhile, and deep directories come up. */
static int empty(struct removal *removal, int directory, int level) {
  for (int is_empty = 0; !is_empty;) {
    int copy = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *list = copy < 0 ? NULL : fdopendir(copy);
    if (!list) return errno;
    struct dirent *entry;
    is_empty = 1;
    while ((entry = readdir(list))) {
      if (is_link_to_itself(entry->d_name)) continue;
      is_empty = 0;
      int error = remove_entry(removal, directory, entry->d_name, level);
      if (error) return closedir(list), error;
    }
    closedir(list);
  }
  return 0;
}

void remove_tree(const struct wire *wire, const struct file_request *request) {
  struct removal removal = {.wire = wire, .top = -1};
  struct stat is;
  char base[256], reason;
  int directory, error = open_parent(request->path, &directory, base, &reason);
  if (error) fail_with(wire, error, reason, 0, NULL);
  if (!strcmp(base, ".") || !strcmp(base, "..")) fail_with(wire, EBUSY, BY_ERRNO, 0, NULL);
  if (fstatat(directory, base, &is, AT_SYMLINK_NOFOLLOW) < 0) fail_with(wire, errno, BY_ERRNO, 0, NULL);
  if (!S_ISDIR(is.st_mode)) {
    if (unlinkat(directory, base, 0) < 0) fail_with(wire, errno, BY_ERRNO, 0, NULL);
    removal.count = 1;
  } else {
    if (!(request->flags & RECURSIVE)) fail_with(wire, EISDIR, BY_ERRNO, 0, NULL);
    removal.top = openat(directory, base, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (removal.top < 0) fail_with(wire, errno, BY_ERRNO, 0, NULL);
    if (is_hidden(removal.top)) fail_with(wire, EACCES, BY_SECRETS, 0, NULL);
    removal.device = is.st_dev;
    error = empty(&removal, removal.top, 0);
    if (!error && unlinkat(directory, base, AT_REMOVEDIR) < 0) error = errno;
    if (error) fail_with(wire, error, BY_ERRNO, removal.count, NULL);
    removal.count++;
  }
  uint8_t payload[8];
  put_u64(payload, removal.count);
  answer(wire, FRAME_DONE, payload, sizeof payload);
}

/* Reports changes below a directory. What it cannot keep up with, it says: the host then reads anew. */
#define _GNU_SOURCE
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

enum { MAX_WATCHES = 1024, MAX_DEPTH = 32, REST_MS = 20 };
enum { CREATED = 'c', WRITTEN = 'w', REMOVED = 'd', RENAMED = 'm', CHANGED = 'a', OVERFLOW = 'o' };

struct watch {
  const struct wire *wire;
  const char *root;
  int inotify, is_recursive, is_over;
  struct {
    int id;
    char *path; /* relative; empty for the root */
  } of[MAX_WATCHES];
  size_t count;
};

static void report(const struct watch *watch, char what, const char *path, const char *name, int is_directory) {
  uint8_t payload[2 + MAX_PATH + 256];
  size_t length = strlen(path), rest = name ? strlen(name) : 0;
  payload[0] = (uint8_t)what;
  payload[1] = (uint8_t)is_directory;
  memcpy(payload + 2, path, length);
  if (length && rest) payload[2 + length++] = '/';
  if (rest) memcpy(payload + 2 + length, name, rest);
  answer(watch->wire, FRAME_EVENT, payload, 2 + length + rest);
}

static int join(char to[MAX_PATH], const char *path, const char *name) {
  return snprintf(to, MAX_PATH, "%s%s%s", path, path[0] ? "/" : "", name) < MAX_PATH;
}

static void add(struct watch *watch, int directory, const char *path, int depth, int is_new);

static void add_children(struct watch *watch, int directory, const char *path, int depth, int is_new) {
  int copy = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *list = copy < 0 ? NULL : fdopendir(copy);
  if (!list) return;
  struct dirent *entry;
  char below[MAX_PATH];
  while ((entry = readdir(list))) {
    struct stat is;
    if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
    if (!join(below, path, entry->d_name) || fstatat(directory, entry->d_name, &is, AT_SYMLINK_NOFOLLOW) < 0) continue;
    if (is_new) report(watch, CREATED, below, NULL, S_ISDIR(is.st_mode)); /* it came before the watch did */
    if (!S_ISDIR(is.st_mode)) continue;
    int child = openat(directory, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (child < 0) continue;
    add(watch, child, below, depth + 1, is_new);
    close(child);
  }
  closedir(list);
}

static void add(struct watch *watch, int directory, const char *path, int depth, int is_new) {
  char through[64];
  if (is_hidden(directory)) return;
  if (watch->count == MAX_WATCHES || depth > MAX_DEPTH) {
    if (!watch->is_over) report(watch, OVERFLOW, "", NULL, 0);
    watch->is_over = 1;
    return;
  }
  snprintf(through, sizeof through, "/proc/self/fd/%d", directory);
  uint32_t mask = IN_CREATE | IN_MODIFY | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_ATTRIB | IN_ONLYDIR |
                  (depth ? 0 : IN_DELETE_SELF | IN_MOVE_SELF);
  int id = inotify_add_watch(watch->inotify, through, mask);
  if (id < 0) {
    if (!depth) fail_with(watch->wire, errno, BY_ERRNO, 0, NULL);
    if (errno == ENOSPC && !watch->is_over) report(watch, OVERFLOW, "", NULL, 0), watch->is_over = 1;
    return;
  }
  for (size_t at = 0; at < watch->count; at++)
    if (watch->of[at].id == id) return; /* the same directory, by another name */
  watch->of[watch->count].id = id;
  watch->of[watch->count].path = strdup(path);
  if (!watch->of[watch->count++].path) leave();
  if (watch->is_recursive) add_children(watch, directory, path, depth, is_new);
}

static void forget(struct watch *watch, size_t at) {
  free(watch->of[at].path);
  watch->of[at] = watch->of[--watch->count];
}

/* A directory that was moved away takes its watches with it. */
static void forget_below(struct watch *watch, const char *path) {
  size_t length = strlen(path);
  for (size_t at = watch->count; at-- > 0;) {
    const char *own = watch->of[at].path;
    if (strncmp(own, path, length) || (own[length] && own[length] != '/')) continue;
    inotify_rm_watch(watch->inotify, watch->of[at].id);
    forget(watch, at);
  }
}

static void add_new(struct watch *watch, const char *path) {
  char whole[2 * MAX_PATH];
  int depth = 1;
  for (const char *at = path; *at; at++) depth += *at == '/';
  snprintf(whole, sizeof whole, "%s/%s", watch->root, path);
  int directory = open(whole, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (directory < 0) return;
  add(watch, directory, path, depth, 1);
  close(directory);
}

/* Whether the watch goes on. */
static int take(struct watch *watch, const struct inotify_event *event) {
  if (event->mask & IN_Q_OVERFLOW) return report(watch, OVERFLOW, "", NULL, 0), 1;
  size_t at = 0;
  while (at < watch->count && watch->of[at].id != event->wd) at++;
  if (at == watch->count) return 1;
  if (event->mask & (IN_DELETE_SELF | IN_MOVE_SELF)) return report(watch, REMOVED, "", NULL, 1), 0;
  if (event->mask & IN_IGNORED) return forget(watch, at), 1;
  char path[MAX_PATH];
  int is_directory = !!(event->mask & IN_ISDIR);
  if (!event->len || !join(path, watch->of[at].path, event->name)) return 1;
  if (event->mask & IN_MODIFY) report(watch, WRITTEN, path, NULL, is_directory);
  if (event->mask & IN_ATTRIB) report(watch, CHANGED, path, NULL, is_directory);
  if (event->mask & IN_DELETE) report(watch, REMOVED, path, NULL, is_directory);
  if (event->mask & IN_MOVED_FROM) report(watch, RENAMED, path, NULL, is_directory);
  if (event->mask & (IN_CREATE | IN_MOVED_TO)) report(watch, CREATED, path, NULL, is_directory);
  if (!is_directory || !watch->is_recursive) return 1;
  if (event->mask & IN_MOVED_FROM) forget_below(watch, path);
  if (event->mask & (IN_CREATE | IN_MOVED_TO)) add_new(watch, path);
  return 1;
}

void watch_directory(const struct wire *wire, const struct file_request *request) {
  static struct watch watch;
  static uint8_t events[MAX_CHUNK] __attribute__((aligned(__alignof__(struct inotify_event))));
  char reason;
  int directory, error = open_directory(request->path, &directory, &reason);
  if (error) fail_with(wire, error, reason, 0, NULL);
  watch.wire = wire;
  watch.root = request->path;
  watch.is_recursive = !!(request->flags & RECURSIVE);
  watch.inotify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
  if (watch.inotify < 0) fail_with(wire, errno, BY_ERRNO, 0, NULL);
  add(&watch, directory, "", 0, 0);
  close(directory);
  answer(wire, FRAME_READY, NULL, 0);
  struct pollfd ends[2] = {{watch.inotify, POLLIN, 0}, {wire->connection, POLLIN, 0}};
  for (;;) {
    if (poll(ends, 2, -1) < 0 && errno != EINTR) leave();
    if (ends[1].revents && is_gone(wire)) leave();
    ssize_t got = read(watch.inotify, events, sizeof events);
    for (ssize_t at = 0; at < got;) {
      const struct inotify_event *event = (const struct inotify_event *)(const void *)(events + at);
      if (!take(&watch, event)) {
        answer(wire, FRAME_DONE, NULL, 0);
        return;
      }
      at += (ssize_t)(sizeof *event + event->len);
    }
    poll(NULL, 0, REST_MS); /* the kernel joins repeated changes meanwhile */
  }
}

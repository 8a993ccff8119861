/* Lists a directory: parents before their content, names by their bytes, a page at a time. Links are not followed. */
#define _GNU_SOURCE
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct listing {
  const struct wire *wire;
  uint8_t page[MAX_CHUNK];
  size_t used;
  uint32_t left; /* entries of this page */
  int has_more;
  dev_t device;
  char path[MAX_PATH]; /* of the current entry, relative */
};

struct names {
  char **of;
  size_t count, room;
  int is_cut;
};

static int by_bytes(const void *one, const void *other) {
  return strcmp(*(char *const *)one, *(char *const *)other);
}

/* The first names only, however many the directory has. */
static void shorten(struct names *names, size_t most) {
  qsort(names->of, names->count, sizeof *names->of, by_bytes);
  names->is_cut |= names->count > most;
  while (names->count > most) free(names->of[--names->count]);
}

static void free_names(struct names *names) {
  while (names->count) free(names->of[--names->count]);
  free(names->of);
}

/* From this name on, which is the last of the page before; as many as the page has room for, and one more. */
static int first_names(int directory, const char *from, size_t from_length, size_t most, struct names *names) {
  int copy = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *list = copy < 0 ? NULL : fdopendir(copy);
  if (!list) return errno;
  names->room = 2 * most + 4;
  names->of = malloc(names->room * sizeof *names->of);
  struct dirent *entry = NULL;
  int error = names->of ? 0 : ENOMEM;
  while (!error && (errno = 0, entry = readdir(list))) {
    if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
    if (from_length) {
      int order = strncmp(entry->d_name, from, from_length);
      if (order < 0) continue;
    }
    if (names->count == names->room) shorten(names, most + 2);
    if (!(names->of[names->count] = strdup(entry->d_name))) error = ENOMEM;
    else names->count++;
  }
  if (!error && !entry) error = errno;
  closedir(list);
  shorten(names, most + 2);
  return error;
}

static void send_page(struct listing *listing) {
  if (listing->used) answer(listing->wire, FRAME_ENTRIES, listing->page, listing->used);
  listing->used = 0;
}

static void emit(struct listing *listing, int directory, const char *name, const struct stat *is) {
  char target[MAX_PATH];
  ssize_t length = S_ISLNK(is->st_mode) ? readlinkat(directory, name, target, sizeof target) : 0;
  size_t target_length = length < 0 ? 0 : (size_t)length, path_length = strlen(listing->path);
  size_t size = META_SIZE + 4 + path_length + target_length;
  if (listing->used + 4 + size > sizeof listing->page) send_page(listing);
  uint8_t *to = listing->page + listing->used;
  put_u32(to, (uint32_t)size);
  pack_meta(to + 4, is);
  put_u32(to + 4 + META_SIZE, (uint32_t)path_length);
  memcpy(to + 8 + META_SIZE, listing->path, path_length);
  memcpy(to + 8 + META_SIZE + path_length, target, target_length);
  listing->used += 4 + size;
  listing->left--;
}

static void list(struct listing *listing, int directory, uint32_t depth, const char *cursor);

static void descend(struct listing *listing, int directory, const char *name, uint32_t depth, const char *cursor) {
  int child = openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  struct stat is;
  if (child < 0) return; /* not this user's to read, or gone: its entry says which it is */
  if (!fstat(child, &is) && is.st_dev == listing->device && !is_hidden(child)) list(listing, child, depth, cursor);
  close(child);
}

static void list(struct listing *listing, int directory, uint32_t depth, const char *cursor) {
  size_t here = strlen(listing->path), first = cursor ? strcspn(cursor, "/") : 0;
  struct names names = {0};
  int error = first_names(directory, cursor, first, listing->left, &names);
  int may_be = error == EACCES || (here && error == ENOENT); /* it was removed since it was opened */
  if (error && !may_be) fail_with(listing->wire, error, BY_ERRNO, 0, NULL);
  for (size_t at = 0; at < names.count && !listing->has_more; at++) {
    const char *name = names.of[at], *rest = NULL;
    struct stat is;
    size_t length = strlen(name);
    int is_before = cursor && strlen(name) == first && !strncmp(name, cursor, first);
    if (is_before && cursor[first] == '/') rest = cursor + first + 1;
    if (here + length + 2 > sizeof listing->path || fstatat(directory, name, &is, AT_SYMLINK_NOFOLLOW) < 0) continue;
    if (!is_before && !listing->left) {
      listing->has_more = 1;
      break;
    }
    if (here) listing->path[here] = '/';
    memcpy(listing->path + here + (here ? 1 : 0), name, length + 1);
    if (!is_before) emit(listing, directory, name, &is);
    if (depth > 1 && S_ISDIR(is.st_mode)) descend(listing, directory, name, depth - 1, rest);
    listing->path[here] = 0;
  }
  listing->has_more |= names.is_cut;
  free_names(&names);
}

void list_directory(const struct wire *wire, const struct file_request *request) {
  static struct listing listing;
  struct stat is;
  char reason;
  int directory, error = open_directory(request->path, &directory, &reason);
  if (error) fail_with(wire, error, reason, 0, NULL);
  if (fstat(directory, &is) < 0) fail_with(wire, errno, BY_ERRNO, 0, NULL);
  if (!is.st_nlink) fail_with(wire, ENOENT, BY_ERRNO, 0, NULL); /* removed, but open somewhere: reading finds nothing */
  listing.wire = wire;
  listing.device = is.st_dev;
  listing.left = request->limit && request->limit <= 1000 ? request->limit : 1000;
  list(&listing, directory, request->depth && request->depth <= 32 ? request->depth : 1,
       request->to && request->to[0] ? request->to : NULL);
  send_page(&listing);
  uint8_t has_more = (uint8_t)listing.has_more;
  answer(wire, FRAME_DONE, &has_more, 1);
}

/* Unpacks a tar archive below a directory. The archive is as hostile as who made it: no name leaves the directory, no
   link is followed, whoever planted it, and no device, FIFO or set-id file appears. Entries before a bad one stay. */
#define _GNU_SOURCE
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BLOCK = 512, MAX_HEADERS = 64 << 10 };

struct unpack {
  const struct wire *wire;
  int root;
  const uint8_t *payload; /* of the current frame: what is not used yet */
  size_t left;
  int has_frame, is_over;
  uint64_t count;
  char name[MAX_PATH], target[MAX_PATH]; /* of the next entry, if the archive gave them before it */
  int has_name, has_target, has_size;
  uint64_t size;
};

struct entry {
  char name[MAX_PATH], target[MAX_PATH];
  char type;
  uint32_t mode;
  uint64_t size, mtime;
};

static void refuse_entry(struct unpack *unpack, int error, char reason, const char *name) {
  fail_with(unpack->wire, error, reason, unpack->count, name);
}

/* Up to this many bytes in place; 0 at the end of what the host sends. */
static size_t next_bytes(struct unpack *unpack, const uint8_t **data, size_t most) {
  while (!unpack->left && !unpack->is_over) {
    if (unpack->has_frame) drop_frame(unpack->wire->input);
    unpack->has_frame = 1;
    char type = await_frame(unpack->wire, &unpack->payload, &unpack->left);
    if (type == FRAME_INPUT_END) unpack->is_over = 1, unpack->left = 0;
    else if (type != FRAME_INPUT) leave();
  }
  size_t size = unpack->left < most ? unpack->left : most;
  *data = unpack->payload;
  unpack->payload += size;
  unpack->left -= size;
  return size;
}

static void read_exactly(struct unpack *unpack, uint8_t *to, size_t length, const char *name) {
  const uint8_t *data;
  while (length) {
    size_t got = next_bytes(unpack, &data, length);
    if (!got) refuse_entry(unpack, ENODATA, BY_ARCHIVE, name);
    memcpy(to, data, got);
    to += got;
    length -= got;
  }
}

static void skip(struct unpack *unpack, uint64_t length, const char *name) {
  const uint8_t *data;
  while (length) {
    size_t got = next_bytes(unpack, &data, length < PIECE ? (size_t)length : PIECE);
    if (!got) refuse_entry(unpack, ENODATA, BY_ARCHIVE, name);
    length -= got;
  }
}

static uint64_t padding(uint64_t size) {
  return (BLOCK - size % BLOCK) % BLOCK;
}

static int get_number(const uint8_t *from, size_t length, uint64_t *value) {
  *value = 0;
  if (from[0] & 0x80) {
    for (size_t at = 0; at < length; at++) {
      if (*value >> 55) return -1;
      *value = *value << 8 | (at ? from[at] : from[at] & 0x7f);
    }
    return 0;
  }
  size_t at = 0;
  while (at < length && from[at] == ' ') at++;
  for (; at < length && from[at] >= '0' && from[at] <= '7'; at++) {
    if (*value >> 60) return -1;
    *value = *value << 3 | (uint64_t)(from[at] - '0');
  }
  return at < length && from[at] && from[at] != ' ' ? -1 : 0;
}

static int is_checked(const uint8_t *block) {
  uint64_t expected;
  unsigned sum = 0;
  if (get_number(block + 148, 8, &expected)) return 0;
  for (size_t at = 0; at < BLOCK; at++) sum += at >= 148 && at < 156 ? ' ' : block[at];
  return sum == expected;
}

static void keep_text(struct unpack *unpack, char *to, const uint8_t *text, size_t length) {
  while (length && !text[length - 1]) length--;
  if (length >= MAX_PATH || memchr(text, 0, length)) refuse_entry(unpack, ENAMETOOLONG, BY_ARCHIVE, NULL);
  memcpy(to, text, length);
  to[length] = 0;
}

/* Records of "LENGTH NAME=VALUE\n"; those that say nothing of names or sizes are left out. */
static void read_records(struct unpack *unpack, const uint8_t *text, size_t length) {
  while (length) {
    size_t size = 0, at = 0;
    while (at < length && at < 8 && text[at] >= '0' && text[at] <= '9') size = size * 10 + (size_t)(text[at++] - '0');
    if (at >= length || text[at++] != ' ' || size <= at || size > length || text[size - 1] != '\n')
      refuse_entry(unpack, EBADMSG, BY_ARCHIVE, NULL);
    const uint8_t *record = text + at, *equals = memchr(record, '=', size - at);
    if (!equals) refuse_entry(unpack, EBADMSG, BY_ARCHIVE, NULL);
    size_t key = (size_t)(equals - record), value = size - at - key - 2;
    if (key == 4 && !memcmp(record, "path", 4)) keep_text(unpack, unpack->name, equals + 1, value), unpack->has_name = 1;
    if (key == 8 && !memcmp(record, "linkpath", 8))
      keep_text(unpack, unpack->target, equals + 1, value), unpack->has_target = 1;
    if (key == 4 && !memcmp(record, "size", 4)) {
      char digits[24] = {0};
      memcpy(digits, equals + 1, value < sizeof digits - 1 ? value : sizeof digits - 1);
      unpack->size = strtoull(digits, NULL, 10);
      unpack->has_size = 1;
    }
    if (key >= 10 && !memcmp(record, "GNU.sparse", 10)) refuse_entry(unpack, ENOTSUP, BY_ARCHIVE, NULL);
    text += size;
    length -= size;
  }
}

static void read_extension(struct unpack *unpack, char type, uint64_t size) {
  if (size > MAX_HEADERS) refuse_entry(unpack, E2BIG, BY_ARCHIVE, NULL);
  uint8_t *text = malloc((size_t)size + 1);
  if (!text) refuse_entry(unpack, ENOMEM, BY_ERRNO, NULL);
  read_exactly(unpack, text, (size_t)size, NULL);
  skip(unpack, padding(size), NULL);
  if (type == 'L') keep_text(unpack, unpack->name, text, (size_t)size), unpack->has_name = 1;
  else if (type == 'K') keep_text(unpack, unpack->target, text, (size_t)size), unpack->has_target = 1;
  else if (type == 'x') read_records(unpack, text, (size_t)size);
  free(text);
}

static void copy_field(char *to, const uint8_t *field, size_t length) {
  size_t size = strnlen((const char *)field, length);
  memcpy(to, field, size);
  to[size] = 0;
}

static void read_name(struct unpack *unpack, const uint8_t *block, struct entry *entry) {
  if (unpack->has_name) {
    strcpy(entry->name, unpack->name);
    return;
  }
  size_t used = 0;
  if (!memcmp(block + 257, "ustar\0", 6) && block[345]) {
    copy_field(entry->name, block + 345, 155);
    used = strlen(entry->name);
    entry->name[used++] = '/';
  }
  copy_field(entry->name + used, block, 100);
}

/* 0 at the end of the archive. */
static int read_entry(struct unpack *unpack, struct entry *entry) {
  uint8_t block[BLOCK];
  uint64_t mode, size;
  unpack->has_name = unpack->has_target = unpack->has_size = 0;
  for (;;) {
    const uint8_t *data;
    size_t got = next_bytes(unpack, &data, BLOCK);
    if (!got) return 0; /* an archive of some programs has no end of its own */
    memcpy(block, data, got);
    read_exactly(unpack, block + got, BLOCK - got, NULL);
    size_t zeros = 0;
    while (zeros < BLOCK && !block[zeros]) zeros++;
    if (zeros == BLOCK) return 0;
    if (!is_checked(block) || get_number(block + 124, 12, &size)) refuse_entry(unpack, EBADMSG, BY_ARCHIVE, NULL);
    entry->type = (char)block[156];
    if (!strchr("LKxg", entry->type) || !entry->type) break;
    read_extension(unpack, entry->type, size);
  }
  read_name(unpack, block, entry);
  if (unpack->has_target) strcpy(entry->target, unpack->target);
  else copy_field(entry->target, block + 157, 100);
  if (get_number(block + 100, 8, &mode) || get_number(block + 136, 12, &entry->mtime))
    refuse_entry(unpack, EBADMSG, BY_ARCHIVE, entry->name);
  entry->mode = (uint32_t)mode & 0777;
  entry->size = unpack->has_size ? unpack->size : size;
  if (entry->size > INT64_MAX) refuse_entry(unpack, EFBIG, BY_ARCHIVE, entry->name);
  return 1;
}

static int leaves_directory(const char *name) {
  if (name[0] == '/') return 1;
  for (const char *part = name; *part; part += strspn(part, "/")) {
    size_t length = strcspn(part, "/");
    if (length == 2 && !memcmp(part, "..", 2)) return 1;
    part += length;
  }
  return 0;
}

/* The directory that the name's last part lies in, made if it is missing; links in the way are refused. base is inside
   of name, or empty for the root itself. */
static int open_way(struct unpack *unpack, char *name, const char **base) {
  int at = openat(unpack->root, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  char *part = name, *rest;
  *base = "";
  if (at < 0) refuse_entry(unpack, errno, BY_ERRNO, name);
  if (leaves_directory(name)) refuse_entry(unpack, EINVAL, BY_NAME, name);
  for (; *part; part = rest) {
    size_t length = strcspn(part, "/");
    rest = part + length + strspn(part + length, "/");
    if (length == 0 || (length == 1 && part[0] == '.')) continue;
    if (length > 255) refuse_entry(unpack, ENAMETOOLONG, BY_ARCHIVE, name);
    if (!*rest) {
      part[length] = 0;
      *base = part;
      return at;
    }
    char kept[256];
    memcpy(kept, part, length);
    kept[length] = 0;
    int below = openat(at, kept, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (below < 0 && errno == ENOENT && !mkdirat(at, kept, 0755))
      below = openat(at, kept, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (below < 0) refuse_entry(unpack, errno == ENOTDIR || errno == ELOOP ? ELOOP : errno, BY_ERRNO, name);
    close(at);
    at = below;
  }
  return at;
}

static void unpack_file(struct unpack *unpack, struct entry *entry, int directory, const char *base) {
  struct draft draft;
  struct stat is;
  uint64_t left = entry->size;
  int error = 0;
  if (!fstatat(directory, base, &is, AT_SYMLINK_NOFOLLOW) && S_ISDIR(is.st_mode)) error = EISDIR;
  if (!error) error = open_draft(&draft, directory);
  if (error) refuse_entry(unpack, error, BY_ERRNO, entry->name);
  while (left) {
    const uint8_t *data;
    size_t got = next_bytes(unpack, &data, left < PIECE ? (size_t)left : PIECE);
    if (!got) refuse_entry(unpack, ENODATA, BY_ARCHIVE, entry->name);
    if ((error = write_all(draft.descriptor, data, got))) refuse_entry(unpack, error, BY_ERRNO, entry->name);
    left -= got;
  }
  struct timespec times[2] = {{.tv_nsec = UTIME_NOW}, {.tv_sec = (time_t)entry->mtime}};
  if (fchmod(draft.descriptor, entry->mode) < 0 || futimens(draft.descriptor, times) < 0) error = errno;
  if (!error) error = place_draft(&draft, base, 0);
  if (error) refuse_entry(unpack, error, BY_ERRNO, entry->name);
  drop_draft(&draft);
  skip(unpack, padding(entry->size), entry->name);
}

static void unpack_directory(struct unpack *unpack, struct entry *entry, int directory, const char *base) {
  if (!base[0]) return; /* the root is as it is */
  if (mkdirat(directory, base, 0700) < 0 && errno != EEXIST) refuse_entry(unpack, errno, BY_ERRNO, entry->name);
  int made = openat(directory, base, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (made < 0) refuse_entry(unpack, errno == ENOTDIR ? ELOOP : errno, BY_ERRNO, entry->name);
  if (fchmod(made, entry->mode | 0700) < 0 && errno != EPERM) refuse_entry(unpack, errno, BY_ERRNO, entry->name);
  close(made);
}

static void unpack_link(struct unpack *unpack, struct entry *entry, int directory, const char *base) {
  if (!entry->target[0]) refuse_entry(unpack, EBADMSG, BY_ARCHIVE, entry->name);
  if (unlinkat(directory, base, 0) < 0 && errno != ENOENT) refuse_entry(unpack, errno, BY_ERRNO, entry->name);
  if (symlinkat(entry->target, directory, base) < 0) refuse_entry(unpack, errno, BY_ERRNO, entry->name);
}

/* To an entry that lies below the same directory: found without following a link either. */
static void unpack_hard_link(struct unpack *unpack, struct entry *entry, int directory, const char *base) {
  const char *name;
  struct stat is;
  int from = open_way(unpack, entry->target, &name);
  if (!name[0] || fstatat(from, name, &is, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(is.st_mode))
    refuse_entry(unpack, ENOENT, BY_ARCHIVE, entry->name);
  if (unlinkat(directory, base, 0) < 0 && errno != ENOENT) refuse_entry(unpack, errno, BY_ERRNO, entry->name);
  if (linkat(from, name, directory, base, 0) < 0) refuse_entry(unpack, errno, BY_ERRNO, entry->name);
  close(from);
}

static void unpack_entry(struct unpack *unpack, struct entry *entry) {
  const char *base;
  char way[MAX_PATH];
  strcpy(way, entry->name);
  int directory = open_way(unpack, way, &base);
  int is_directory = entry->type == '5' || entry->name[strlen(entry->name) - !!entry->name[0]] == '/';
  if (is_directory) unpack_directory(unpack, entry, directory, base), skip(unpack, entry->size + padding(entry->size), "");
  else if (!base[0]) refuse_entry(unpack, EINVAL, BY_NAME, entry->name);
  else if (entry->type == '0' || entry->type == 0 || entry->type == '7') unpack_file(unpack, entry, directory, base);
  else if (entry->type == '2') unpack_link(unpack, entry, directory, base);
  else if (entry->type == '1') unpack_hard_link(unpack, entry, directory, base);
  else refuse_entry(unpack, ENOTSUP, BY_ARCHIVE, entry->name);
  close(directory);
  unpack->count++;
}

void unpack_archive(const struct wire *wire, const struct file_request *request) {
  static struct unpack unpack;
  static struct entry entry;
  char reason;
  unpack.wire = wire;
  if (request->flags & WITH_PARENTS) {
    char below[MAX_PATH + 2];
    snprintf(below, sizeof below, "%s/", request->path);
    make_parents(below);
  }
  int error = open_directory(request->path, &unpack.root, &reason);
  if (error) fail_with(wire, error, reason, 0, NULL);
  answer(wire, FRAME_READY, NULL, 0);
  while (read_entry(&unpack, &entry)) unpack_entry(&unpack, &entry);
  const uint8_t *rest;
  while (next_bytes(&unpack, &rest, PIECE)) continue; /* what fills up the last record */
  uint8_t payload[8];
  put_u64(payload, unpack.count);
  answer(wire, FRAME_DONE, payload, sizeof payload);
}

/* Sends a directory, or one file, as a tar archive of the GNU format, whose names are any bytes. Links stay links, hard
   links become copies; sockets, FIFOs and devices are left out, and so is what lies on another file system. */
#define _GNU_SOURCE
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BLOCK = 512 };

struct archive {
  const struct wire *wire;
  uint8_t piece[PIECE];
  size_t used;
  uint64_t count;
  dev_t device;
  char path[MAX_PATH];
};

static void flush(struct archive *archive) {
  if (archive->used) answer(archive->wire, FRAME_DATA, archive->piece, archive->used);
  archive->used = 0;
}

static void append(struct archive *archive, const void *data, size_t length) {
  const uint8_t *from = data;
  while (length) {
    size_t room = PIECE - archive->used, part = length < room ? length : room;
    memcpy(archive->piece + archive->used, from, part);
    archive->used += part;
    from += part;
    length -= part;
    if (archive->used == PIECE) flush(archive);
  }
}

static void fill_block(struct archive *archive, uint64_t size) {
  static const uint8_t nothing[BLOCK];
  if (size % BLOCK) append(archive, nothing, BLOCK - size % BLOCK);
}

/* Octal, or if it has no room, the low bytes behind a mark. */
static void put_number(uint8_t *to, size_t room, uint64_t value) {
  if (value >> (3 * (room - 1)) == 0) {
    snprintf((char *)to, room, "%0*llo", (int)room - 1, (unsigned long long)value);
    return;
  }
  memset(to, 0, room);
  to[0] = 0x80;
  for (size_t at = room; at-- > 1 && value; value >>= 8) to[at] = (uint8_t)value;
}

static void put_header(struct archive *archive, const char *name, const char *target, char type, const struct stat *is,
                       uint64_t size) {
  uint8_t block[BLOCK] = {0};
  size_t length = strlen(name), target_length = strlen(target);
  memcpy(block, name, length < 100 ? length : 100);
  put_number(block + 100, 8, is ? is->st_mode & 07777 : 0644);
  put_number(block + 108, 8, is ? is->st_uid : 0);
  put_number(block + 116, 8, is ? is->st_gid : 0);
  put_number(block + 124, 12, size);
  put_number(block + 136, 12, is && is->st_mtime > 0 ? (uint64_t)is->st_mtime : 0);
  memset(block + 148, ' ', 8);
  block[156] = (uint8_t)type;
  memcpy(block + 157, target, target_length < 100 ? target_length : 100);
  memcpy(block + 257, "ustar  ", 8);
  unsigned sum = 0;
  for (size_t at = 0; at < BLOCK; at++) sum += block[at];
  snprintf((char *)block + 148, 8, "%06o", sum);
  append(archive, block, BLOCK);
}

static void put_long(struct archive *archive, const char *text, char type) {
  size_t length = strlen(text) + 1;
  if (length <= 100) return;
  put_header(archive, "././@LongLink", "", type, NULL, length);
  append(archive, text, length);
  fill_block(archive, length);
}

static void put_entry(struct archive *archive, const char *target, char type, const struct stat *is, uint64_t size) {
  put_long(archive, target, 'K');
  put_long(archive, archive->path, 'L');
  put_header(archive, archive->path, target, type, is, size);
  archive->count++;
}

static void fail_at(struct archive *archive, int error) {
  fail_with(archive->wire, error, BY_ERRNO, archive->count, archive->path);
}

static void put_file(struct archive *archive, int directory, const char *name) {
  static uint8_t buffer[MAX_CHUNK];
  struct stat is;
  int file = openat(directory, name, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_NOCTTY | O_CLOEXEC);
  if (file < 0) {
    if (errno == ENOENT || errno == ELOOP || errno == ENXIO) return; /* gone, or no file any more */
    fail_at(archive, errno);
  }
  if (fstat(file, &is) < 0) fail_at(archive, errno);
  if (S_ISREG(is.st_mode)) {
    uint64_t left = (uint64_t)is.st_size;
    put_entry(archive, "", '0', &is, left);
    while (left) {
      ssize_t got = read(file, buffer, left < sizeof buffer ? (size_t)left : sizeof buffer);
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) fail_at(archive, got < 0 ? errno : ESTALE); /* it has become shorter */
      append(archive, buffer, (size_t)got);
      left -= (uint64_t)got;
    }
    fill_block(archive, (uint64_t)is.st_size);
  }
  close(file);
}

static void put_link(struct archive *archive, int directory, const char *name, const struct stat *is) {
  char target[MAX_PATH];
  ssize_t length = readlinkat(directory, name, target, sizeof target - 1);
  if (length < 0) return;
  target[length] = 0;
  put_entry(archive, target, '2', is, 0);
}

static void put_tree(struct archive *archive, int directory, int level);

static void put_directory(struct archive *archive, int directory, const char *name, const struct stat *is, int level) {
  size_t length = strlen(archive->path);
  if (length + 2 > sizeof archive->path) fail_at(archive, ENAMETOOLONG);
  memcpy(archive->path + length, "/", 2);
  put_entry(archive, "", '5', is, 0);
  archive->path[length] = 0;
  if (is->st_dev != archive->device) return;
  if (level == MAX_LEVELS) fail_at(archive, ENAMETOOLONG);
  int child = openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (child < 0) {
    if (errno == ENOENT || errno == ENOTDIR) return;
    fail_at(archive, errno);
  }
  if (!is_hidden(child)) put_tree(archive, child, level + 1);
  close(child);
}

static void put_tree(struct archive *archive, int directory, int level) {
  size_t here = strlen(archive->path);
  int copy = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *list = copy < 0 ? NULL : fdopendir(copy);
  if (!list) fail_at(archive, errno);
  struct dirent *entry;
  while ((entry = readdir(list))) {
    const char *name = entry->d_name;
    struct stat is;
    if (!strcmp(name, ".") || !strcmp(name, "..")) continue;
    if (fstatat(directory, name, &is, AT_SYMLINK_NOFOLLOW) < 0) continue;
    if (here + strlen(name) + 2 > sizeof archive->path) fail_at(archive, ENAMETOOLONG);
    snprintf(archive->path + here, sizeof archive->path - here, "%s%s", here ? "/" : "", name);
    if (S_ISDIR(is.st_mode)) put_directory(archive, directory, name, &is, level);
    else if (S_ISREG(is.st_mode)) put_file(archive, directory, name);
    else if (S_ISLNK(is.st_mode)) put_link(archive, directory, name, &is);
    archive->path[here] = 0;
  }
  closedir(list);
}

void send_archive(const struct wire *wire, const struct file_request *request) {
  static struct archive archive;
  static const uint8_t end[2 * BLOCK];
  struct stat is;
  char base[256], reason;
  int handle, error = open_place(request->path, &handle, &is, &reason);
  if (error) fail_with(wire, error, reason, 0, NULL);
  close(handle);
  archive.wire = wire;
  archive.device = is.st_dev;
  if (S_ISDIR(is.st_mode)) {
    if ((error = open_directory(request->path, &handle, &reason))) fail_with(wire, error, reason, 0, NULL);
    answer(wire, FRAME_READY, NULL, 0);
    put_tree(&archive, handle, 0);
  } else {
    if (!S_ISREG(is.st_mode)) fail_with(wire, EINVAL, BY_KIND, 0, NULL);
    if ((error = open_parent(request->path, &handle, base, &reason))) fail_with(wire, error, reason, 0, NULL);
    answer(wire, FRAME_READY, NULL, 0);
    strcpy(archive.path, base);
    put_file(&archive, handle, base);
  }
  append(&archive, end, sizeof end);
  flush(&archive);
  uint8_t payload[8];
  put_u64(payload, archive.count);
  answer(wire, FRAME_DONE, payload, sizeof payload);
}

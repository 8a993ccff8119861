#include "kept.h"

#include <string.h>

struct ring ring_at(uint8_t *memory) { return (struct ring){memory, memory + RING_BYTES, 0, 0}; }

static int kind_at(const struct ring *ring, uint64_t offset) {
  size_t at = (size_t)(offset % RING_BYTES);
  return ring->kinds[at / 8] >> (at % 8) & 1;
}

static void set_kinds(struct ring *ring, size_t at, size_t length, int is_error) {
  const uint8_t all = is_error ? 0xff : 0;
  for (size_t end = at + length; at < end;) {
    uint8_t *byte = &ring->kinds[at / 8];
    if (at % 8 == 0 && end - at >= 8) {
      if (*byte != all) *byte = all;
      at += 8;
    } else {
      uint8_t bit = (uint8_t)(1 << (at % 8));
      *byte = (uint8_t)(is_error ? *byte | bit : *byte & ~bit);
      at++;
    }
  }
}

void add_output(struct ring *ring, const uint8_t *bytes, size_t length, int is_error) {
  while (length) {
    size_t at = (size_t)(ring->end % RING_BYTES), piece = RING_BYTES - at;
    if (piece > length) piece = length;
    memcpy(ring->bytes + at, bytes, piece);
    set_kinds(ring, at, piece, is_error);
    ring->end += piece;
    bytes += piece;
    length -= piece;
  }
  if (ring->end - ring->first > RING_BYTES) ring->first = ring->end - RING_BYTES;
}

size_t copy_output(const struct ring *ring, uint64_t from, uint8_t *to, size_t room, int *is_error) {
  size_t at = (size_t)(from % RING_BYTES), length = RING_BYTES - at, same = 1;
  if (length > ring->end - from) length = (size_t)(ring->end - from);
  if (length > room) length = room;
  if (!length) return 0;
  *is_error = kind_at(ring, from);
  const uint8_t all = *is_error ? 0xff : 0;
  while (same < length) {
    if ((at + same) % 8 == 0 && length - same >= 8 && ring->kinds[(at + same) / 8] == all) {
      same += 8;
    } else if (kind_at(ring, from + same) == *is_error) {
      same++;
    } else {
      break;
    }
  }
  memcpy(to, ring->bytes + at, same);
  return same;
}
